"""Tests of grader/equality.py and what it builds on (spelling, reading, values): what is equal, by kind of answer; the
parser on random trees and random text; hostile text; and two slow graders to compare with: sympy's simplify on trees,
math-verify on rewritten golds of real sets."""

import json
import random
import re
import subprocess
import sys
import threading
import time
import warnings
from fractions import Fraction
from pathlib import Path

import mpmath
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from grader import reading, values
from grader.equality import compare, is_equiv, is_parsed
from grader.spelling import Refused

SHARED = Path(__file__).resolve().parents[3] / "shared"

# ---------------------------------------------------------------- by kind
# kind, then lines of "candidate ~ gold", between ";;": "=" equal, "!" not

CASES = r"""
integer
= 7 ~ 7 ;; +7 ~ 7 ;; -0 ~ 0 ;; 7. ~ 7 ;; 007 ~ 7 ;; 3+4 ~ 7 ;; (9-2) ~ 7 ;; 14/2 ~ 7 ;; seven ~ 7 ;; twenty-one ~ 21
= --7 ~ 7 ;; 7.0 ~ $7$ ;; 2\cdot 4-1 ~ 7 ;; −7 ~ -7 ;; - 7 ~ -7 ;; \frac{21}{3} ~ 7
= \left(7\right) ~ 7 ;; {7} ~ 7 ;; 7! ~ 5040
! 7 ~ -7 ;; 7 ~ 8 ;; 0.7 ~ 7 ;; 77 ~ 7 ;; 7 7 ~ 77 ;; 7! ~ 7 ;; seventy ~ 7 ;; 7x ~ 7 ;; sixteen ~ 6 ;; 2^7 ~ 7
! 7^2 ~ 7 ;; x ~ 7 ;; 7i ~ 7 ;; 7\pi ~ 7 ;; |7 ~ 7 ;; 7.. ~ 8 ;; 12345678901234567891 ~ 12345678901234567890
! ten ~ net ;; not 7 ~ 7 ;; none ~ 0 ;; twelve one ~ 13

integer-commas
= 1,234 ~ 1234 ;; 1234 ~ 1,\!234 ;; 1{,}234 ~ 1,234 ;; 1\,234\,567 ~ 1234567 ;; 58 500 ~ 58,500 ;; 12,345.5 ~ 12345.50
= -1,000 ~ -1000 ;; 1,234,567 ~ 1{,}234{,}567
! 1,234 ~ 1,235 ;; 1,23 ~ 123 ;; 12,34 ~ 1234 ;; 1,2345 ~ 12345 ;; (1,234) ~ 1234 ;; 1,234 ~ 1.234 ;; 1, 234, 5 ~ 12345
! 10,000 ~ 1,000

fraction
= \frac{1}{2} ~ 1/2 ;; \frac12 ~ 0.5 ;; \frac{2}{4} ~ 1/2 ;; \frac1{2} ~ \dfrac{1}2 ;; 3/-4 ~ -3/4
= -\frac{-3}{-4} ~ -0.75 ;; \frac{-3}{4} ~ \frac{3}{-4} ;; \frac{\frac12}{3} ~ 1/6 ;; 1\div 2 ~ 1/2
= \left(\frac{1}{2}\right) ~ 1/2 ;; {1}/{2} ~ 1/2 ;; ½ ~ 0.5 ;; \tfrac{7}{3} ~ 7/3 ;; 1/2 + 1/3 ~ 5/6
= \frac{1}{ 2 } ~ 1/2 ;; 2^{-1} ~ 1/2 ;; \frac{a}{b} ~ a/b ;; \frac{1}{2}x ~ x/2 ;; 1/2x ~ 0.5x
! 1/2 ~ 2 ;; 1/2 ~ 2/1 ;; \frac{12}{} ~ 12 ;; 12 ~ 1/2 ;; 0.33 ~ 1/3 ;; 0.3333 ~ 1/3 ;; 1/3 ~ 0.33 ;; 1/2 ~ -1/2
! \frac{1}{20} ~ 1/2 ;; 1/0 ~ 1/0.0 ;; x/yz ~ xz/y ;; 0/0 ~ 0 ;; \frac{1}{2 ~ 1/2

mixed-number
= 1\frac{3}{4} ~ 7/4 ;; 1 3/4 ~ 1.75 ;; -2\frac12 ~ -5/2 ;; 3\dfrac{1}{3} ~ 10/3 ;; 10 \frac{1}{2} ~ 10.5
= 2\tfrac13 ~ \frac{7}{3} ;; 12 3/5 ~ 12.6 ;; 2½ ~ 5/2 ;; \$1\frac12 ~ 1.5
! 1\frac{3}{4} ~ 3/4 ;; -2\frac12 ~ -1.5 ;; 1\frac{3}{4} ~ 13/4 ;; 1 3/4 ~ 13/4 ;; 2\frac{3}{2} ~ 3.5 ;; 7\frac14 ~ 7/4
! 1 1/2 ~ 11/2 ;; 3\frac{1}{3} ~ 1

decimal
= 0.5 ~ .5 ;; 1.50 ~ 1.5 ;; 0.1+0.2 ~ 0.3 ;; 3.0 ~ 3 ;; 0.\overline{3} ~ 1/3 ;; 0.1\overline{6} ~ 1/6
= 0.3333333333 ~ 1/3 ;; 0.\overline{142857} ~ 1/7 ;; 0.333\ldots ~ 1/3 ;; 0.1666... ~ 1/6 ;; 1.4142135624 ~ \sqrt{2}
= 3.14159265358979 ~ \pi ;; -0.6666666667 ~ -2/3 ;; 0.75\sqrt3 ~ \frac{3\sqrt3}{4}
! 0.\overline{①} ~ 0.1 ;; 0.5 ~ 0.05 ;; 1.5 ~ -1.5 ;; 0.333 ~ 1/3 ;; 3.14 ~ \pi ;; 1.4142 ~ \sqrt2 ;; 0.\overline{3} ~ 0.3
! 0.3333333334 ~ 0.3333333333 ;; 0.3333333343 ~ 1/3 ;; 1/3 ~ 0.3333333333 ;; 0.99999999999 ~ 1 ;; 3.2 ~ 3.21
! 1.5.2 ~ 1.52 ;; 0.\overline{9} ~ 0.9 ;; 2.50000000001 ~ 2.5

scientific
= 3 \times 10^8 ~ 300000000 ;; 3e8 ~ 3\cdot 10^{8} ;; 1.2E-3 ~ 0.0012 ;; 10^{-3} ~ 0.001 ;; 3*10**8 ~ 3e8
= 6.02 \times 10^{23} \text{ mol}^{-1} ~ 6.02e23 ;; 0.3 \times 10^{9} ~ 3e8 ;; 3 x 10^8 ~ 3 \times 10^8 ;; 4.5E+3 ~ 4500
= 1.6\times10^{-19}\text{ C} ~ 1.6e-19 ;; 2.0 \times 10^{3} ~ 2,000
! 3e8 ~ 3e9 ;; 3e-8 ~ 3e8 ;; 3 \times 10^8 ~ 3.1e8 ;; 1e-400 ~ 0 ;; 1e400 ~ 1e401 ;; 3e8 ~ 38 ;; 1.325e-27 ~ 1.352e-27
! 10^{-20} ~ 10^{-21} ;; 3e8 ~ 3e^8

percent
= 28 ~ 28\% ;; 0.28 ~ 28% ;; 28 percent ~ 28\% ;; 28\% ~ 28 \% ;; 20\% ~ 20 ;; 75\% ~ 0.75 ;; 62.5 ~ 62.5%
= \frac{1}{4} ~ 25\% ;; 12\frac12\% ~ 12.5\% ;; 50\% ~ \frac12 ;; 100% ~ 1
! 0.2 ~ 20 ;; 75 ~ 0.75 ;; 0.28\% ~ 28\% ;; 27\% ~ 28\% ;; 2.8 ~ 28\% ;; 28\% ~ 82\% ;; 0.75% ~ 0.75
! 28\text{ dollars} ~ 28\%

money
= \$36 ~ 36 ;; 36 ~ \$36 ;; \$36.00 ~ \$36 ;; 36 dollars ~ \$36 ;; \$1,\!000 ~ 1000 ;; $36 ~ \$36
= 36\text{ USD} ~ \$36 ;; \$3 million ~ 3000000 ;; -\$5 ~ -5 ;; \$ 5.50 ~ \$5.5 ;; €5 ~ 5 ;; 36 dollars ~ 36.00
! \$36 ~ \$35 ;; 36 cents ~ \$36 ;; \$0.36 ~ 36 ;; \$3.6 ~ \$36 ;; 5 euros ~ \$5 ;; \$5 ~ 5\% ;; \$3 million ~ \$3
! 5.4 dollars ~ 5.4\text{ cents}

units
= 5 cm ~ 5 ;; 5 ~ 5\text{ cm} ;; 5cm ~ 5 centimeters ;; 5\,\mathrm{cm} ~ 5 \text{ cm} ;; 5 miles ~ 5 mile
= 15\text{ cm}^2 ~ 15\mbox{ cm}^{2} ;; 15 square inches ~ 15\text{ in}^2 ;; 30 mph ~ 30 miles per hour
= 3 m/s ~ 3 \text{ m/s} ;; 3\ \mathrm{m}\cdot\mathrm{s}^{-1} ~ 3 m/s ;; 9\text{ min} ~ 9 minutes ;; 21 dogs ~ 21
= 5 sec ~ 5 seconds ;; 30 per week ~ 30 ;; \$30 per week ~ 30 ;; \sec x ~ 1/\cos x
! 5 pairs of people ~ 5 people ;; 5 sec ~ 5 minutes
= 34 square units ~ 34\text{ sq. units} ;; 7 \text{ distinct integers} ~ 7 integers ;; 3 million people ~ 3,000,000
= 25 m² ~ 25 ;; 9 ft² ~ 9 square feet
= 5 ~ 5m ;; 9 m ~ 9米 ;; 9 ~ 9米 ;; 3厘米 ~ 3 cm ;; 27平方厘米 ~ 27cm^{2} ;; 145度 ~ 145° ;; 145º ~ 145 ;; 145˚ ~ 145
= ∠2 = 145° ~ 145 ;; \angle 2 = 145^\circ ~ 145° ;; 4/3 m ~ \frac{4}{3}米 ;; 2\sqrt{15} m ~ 2√{15}米 ;; 50π ~ 50πm^{2}
= 50\pi m^2 ~ 50πm^{2} ;; 0.5 cm² ~ \frac{1}{2}cm²
= x = 5\text{ cm} ~ 5 ;; 5 m ~ 5\text{ m} ;; 25\pi \text{ cm}^2 ~ 25\pi ;; 7 hours ~ 7 hrs. ;; \frac{1}{2} hour ~ 1/2
= 1.85\ \text{USD} ~ 1.85 ;; 12 apples ~ 12 ;; 5~\mathrm{ft} ~ 5 feet ;; 120 km/h ~ 120 km per hour
! 5 cm ~ 5 m ;; 5 miles ~ 5 km ;; 5\text{ cm}^2 ~ 5 cm ;; 5 hours ~ 5 minutes ;; 6 cm ~ 5 cm ;; 5 cm ~ 50 ;; 5x ~ 5
! 17 million ~ 17 ;; 5 squared ~ 5 ;; 5 mod ~ 5 ;; 2 thirds ~ 2 ;; 5 but maybe 6 ~ 5 ;; 6m ~ 6n ;; 5 is wrong ~ 5
! 5 m/s ~ 5 m ;; 2 dozen ~ 2 ;; 8 gross ~ 8 ;; 8 in ten ~ 8 ;; 17 or more ~ 17 ;; at least 5 ~ 5 ;; 6 ~ $6m$
! 5 cm ~ 5m ;; 9厘米 ~ 9米 ;; 9平方米 ~ 9米 ;; 50 ~ 50πm^{2} ;; 4/3 s ~ \frac{4}{3}米 ;; ∠2 = 145° ~ 144 ;; 5m ~ 6

degrees
= 90^\circ ~ 90 ;; 90° ~ 90^{\circ} ;; 90 degrees ~ 90^\circ ;; 90\text{ degrees} ~ 90 ;; 90 ~ 90^\circ.
= 38\frac47^\circ ~ \frac{270}{7}^\circ ;; -30^{\circ} ~ -30 ;; \angle A = 90^\circ ~ 90 ;; \sin 30^\circ ~ 1/2
= 1950^\circ C ~ 1950^{\circ}\text{C} ;; \tan(45^\circ) ~ 1 ;; 2\cos 60^\circ ~ 1
! 90^\circ ~ 9 ;; 90 radians ~ 90^\circ ;; \frac{\pi}{6} ~ 30 ;; 30^\circ ~ 3^0 ;; 1950^\circ C ~ 1950^\circ F
! 90^\circ ~ -90 ;; \sin 30 ~ 1/2 ;; 45^\circ ~ 44^\circ

radical
= \sqrt{12} ~ 2\sqrt{3} ;; \frac{1}{\sqrt2} ~ \frac{\sqrt2}{2} ;; \sqrt[3]{16} ~ 2\sqrt[3]{2} ;; sqrt(8) ~ 2\sqrt2
= \sqrt{3+2\sqrt2} ~ 1+\sqrt2 ;; √19 ~ \sqrt{19} ;; \sqrt13 ~ \sqrt{13} ;; 2^{1/2} ~ \sqrt2 ;; 8^(1/3) ~ 2
= \sqrt{4} ~ 2 ;; \sqrt[3]{-8} ~ -2 ;; \frac{3}{2\sqrt{3}-3} ~ 3+2\sqrt3 ;; 2 \sqrt{6} - 2 \sqrt{3} ~ 2(\sqrt6-\sqrt3)
= 5\cdot\sqrt{2} ~ \sqrt{50} ;; \sqrt{\frac{1}{2}} ~ \frac{\sqrt{2}}{2} ;; 5 * sqrt(2) ~ 5\sqrt2 ;; \sqrt{r_0^2} ~ r_0
! \sqrt{2} ~ \sqrt{3} ;; -\sqrt2 ~ \sqrt2 ;; \sqrt{2}+\sqrt{3} ~ \sqrt5 ;; 2\sqrt3 ~ 3\sqrt2 ;; \sqrt[3]{2} ~ \sqrt2
! \sqrt{2}+10^{-60} ~ \sqrt{2} ;; \sqrt{4} ~ -2 ;; \sqrt{2 ~ \sqrt{2} ;; \frac{\sqrt3}{3} ~ \frac{3}{\sqrt3}

polynomial
= (x+1)^2 ~ x^2+2x+1 ;; 2x+3 ~ 3+2x ;; x(x+1) ~ x^2+x ;; -(x-1) ~ 1-x ;; xy ~ yx ;; 2*x ~ 2x ;; x**2 ~ x^2
= (x-1)(x+1) ~ x^2-1 ;; \frac{x^2-1}{x-1} ~ x+1 ;; a^2-b^2 ~ (a-b)(a+b) ;; x^{2}y ~ y\cdot x^2 ;; 2(a+b) ~ 2a+2b
= x^2/2 ~ \frac12x^2 ;; (3x+7)(x+1) ~ 3x^2+10x+7 ;; x_1+x_2 ~ x_{2}+x_{1} ;; \alpha\beta ~ \beta \alpha
= n(n-1) ~ n^2-n ;; 6z ~ z6 ;; x \times y ~ xy ;; 3x^{-1} ~ 3/x ;; 2^{n-1} ~ \frac{2^n}{2} ;; x-x+2 ~ 2
= 120a^{10} ~ 120 a^{10}
! 2x ~ 2y ;; x^2 ~ 2x ;; x+1 ~ x-1 ;; x^3 ~ x^{3}y ;; x+y ~ xy ;; x^2+1 ~ x^2 ;; |x| ~ x ;; 2n ~ n ;; -x ~ x
! x_1 ~ x_2 ;; x+10^{-60} ~ x ;; x^2=1 ~ x^2 ;; \frac{x}{2} ~ 2x ;; x ~ 4 ;; f(2x) ~ 2f(x) ;; I(0) ~ 0
! (x+1)^2 ~ x^2+1
! |x-3| ~ 3-x ;; |x+1| ~ x+1 ;; |x-20| ~ 20-x ;; \lfloor x\rfloor ~ x

log-trig-exp
= \sin^2 x+\cos^2 x ~ 1 ;; \tan x ~ \frac{\sin x}{\cos x} ;; \ln(xy) ~ \ln x+\ln y ;; e^{-x} ~ \frac{1}{e^x}
= \log_2 8 ~ 3 ;; \ln 8 ~ 3\ln2 ;; \log_{10} 100 ~ 2 ;; \frac{\ln 8}{\ln 2} ~ 3 ;; \sin^{-1} x ~ \arcsin x
= \sin(2x) ~ 2\sin x\cos x ;; \exp(x) ~ e^x ;; \csc x ~ \frac{1}{\sin x} ;; \cos 2\theta ~ 2\cos^2\theta-1
= \log 2 ~ \ln 2 ;; \sin\frac{\pi}{6} ~ 0.5 ;; \cos(\pi/3) ~ 1/2 ;; sin(x) ~ \sin x ;; 2\pi r ~ \pi \cdot 2r
= \operatorname{arctan} x ~ \tan^{-1} x ;; \ln\sqrt{x} ~ \frac12\ln x
= 1-e^{-1} ~ 1-\frac1e ;; \log_{10} 2 ~ \frac{\ln 2}{\ln 10} ;; \cos^2 x ~ (\cos x)^2 ;; \mathrm{e}^{x} ~ e^x
= \sin 5x \cos x ~ \cos x \sin(5x)
! \sin 2x ~ 2\sin x ;; \sin x ~ \cos x ;; \ln 2 ~ \ln 3 ;; e^x ~ e^{-x} ;; \sin^{-1} x ~ \frac{1}{\sin x} ;; \pi ~ 3
! \log_2 3 ~ \log_3 2 ;; \sin(x^2) ~ \sin^2 x ;; e ~ 2.718 ;; \tan\frac{\pi}{2} ~ 0 ;; \ln 0 ~ -\infty
! e^{\pi\sqrt{163}} ~ 262537412640768744 ;; \log_2 n ~ \log_3 n ;; \sin x ~ x

complex
= 3+4i ~ 4i+3 ;; i^2 ~ -1 ;; e^{i\pi} ~ -1 ;; \sqrt{-4} ~ 2i ;; (1+i)^2 ~ 2i ;; \frac{1}{i} ~ -i
= 2i\sqrt3 ~ 2\sqrt{3}i ;; 2e^{i\pi/3} ~ 1+i\sqrt3 ;; |3+4i| ~ 5 ;; \frac{1+i}{2} ~ \frac12+\frac12 i
= \cos\theta+i\sin\theta ~ e^{i\theta} ;; i^5 ~ i ;; 5 - 11 i ~ 5-11i ;; 3\mathrm{i} ~ 3i
! 3+4i ~ 3-4i ;; i ~ 1 ;; i ~ -i ;; 3+4i ~ 7 ;; i^2 ~ 1 ;; 2i ~ 2 ;; 4+3i ~ 3+4i ;; e^{i\pi/3} ~ 1

infinity
= \infty ~ +\infty ;; infinity ~ \infty ;; -\infty ~ -∞ ;; \text{infinity} ~ \infty ;; x=\infty ~ \infty
! \infty ~ -\infty ;; \infty ~ 0 ;; 1/0 ~ \infty ;; \infty ~ x ;; 8 ~ \infty ;; \infty-\infty ~ 0

interval
= (1,2] ~ \left(1,2\right] ;; 1<x<=2 ~ (1,2] ;; x\in[1,2] ~ 1\le x\le 2 ;; x>5 ~ (5,\infty) ;; 5 \le x ~ [5,\infty)
= (-\infty,2)\cup(3,\infty) ~ (3,\infty) \cup (-\infty,2) ;; (-\infty,2)\cup(3,\infty) ~ x<2 \text{ or } x>3
= [0.5,1) ~ [\frac12,1) ;; \mathbb{R} ~ (-\infty,\infty) ;; x\ne 3 ~ (-\infty,3)\cup(3,\infty) ;; |x|<2 ~ (-2,2)
= \mathbb{R}\setminus\{3\} ~ x\neq3 ;; [1,2]\cup[2,3] ~ [1,3] ;; (-\infty,0)\cup\{1\} ~ \{1\}\cup(-\infty,0)
= x≥2 ~ [2, +\infty) ;; \{x \mid x > 3\} ~ (3,\infty) ;; -\sqrt3 \leqslant x < \sqrt3 ~ [-\sqrt{3},\sqrt{3})
= (a,b) ~ (a, b) ;; x\in(1,2) ~ 1<x<2 ;; t \in (0,4] ~ 0<t<=4 ;; D=(0,1) ~ (0,1) ;; \{x | -1 < x < 1\} ~ (-1,1)
= x>1 and x<3 ~ (1,3) ;; k \in \mathbb{R} ~ \mathbb{R}
! (1,2] ~ [1,2) ;; (1,2) ~ [1,2] ;; 1<x<2 ~ 1\le x\le2 ;; (1,3) ~ (1,2) ;; x>5 ~ x<5 ;; (5,\infty) ~ [5,\infty)
! (-\infty,2)\cup(3,\infty) ~ (-\infty,2) ;; (2,1) ~ (1,2) ;; \mathbb{R} ~ \mathbb{Z} ;; (1,2)\cup(2,3) ~ (1,3)
! x>5 ~ 5 ;; (1,2)\cap(3,4) ~ (1,2)\cup(3,4) ;; (1,2 ~ (1,2) ;; [1,2] ~ 1,2 ;; (0,\infty) ~ (-\infty,0)
! \mathbb{R}\setminus\{3\} ~ \mathbb{R}

inequality
= x>=5 ~ x \ge 5 ;; 5<x ~ x>5 ;; 2x>10 ~ x>5 ;; s^2 \le 8r^2 ~ 8r^2 \geq s^2 ;; x+y<1 ~ y<1-x ;; x \neq 3 ~ x\ne3
= -3<x<5 ~ 5>x>-3 ;; x \lt 3 ~ x<3 ;; k \geqslant 2 ~ k\ge 2 ;; x \le -1 \text{ or } x \ge 1 ~ x\ge1\text{ or }x\le-1
! x>5 ~ x\ge 5 ;; x>5 ~ y>5 ;; x>5 ~ x>4 ;; x\neq3 ~ x=3 ;; -x>5 ~ x>5 ;; x \ne 3 ~ x>3 ;; x<1, x>3 ~ x<1
! s^2<8r^2 ~ s^2>8r^2

equation
= x=5 ~ 5 ;; 5=x ~ x=5 ;; y=2x+3 ~ 2x+3 ;; y=2x+3 ~ f(x)=2x+3 ;; f(t)=t^2 ~ f(x)=x^2 ;; 2x-y+3=0 ~ y=2x+3
= x^2+y^2=4 ~ 4-x^2=y^2 ;; 2x+2y=4 ~ x+y=2 ;; a=2, b=3 ~ b=3, a=2 ;; x = 40+2 = 42 ~ 42
= 2\sqrt5 \approx 4.47 ~ 2\sqrt5 ;; x=1, x=2 ~ 1,2 ;; x=1 or 2 ~ 1,2 ;; x = \pm 3 ~ 3,-3 ;; (x,y)=(1,2) ~ (1,2)
= AB=5 ~ 5 ;; \text{Area} = 5 ~ 5 ;; P(A)=1/2 ~ 0.5 ;; m_{\max}=n^2 ~ n^2 ;; x+y+z=0 ~ -x-y-z=0
= y = (x+1)^2 = x^2+2x+1 ~ (x+1)^2 ;; Area = 12 cm^2 ~ 12 ;; \frac{dx}{dt}=kx-a ~ \frac{dx}{dt}+a=kx ;; k=2n-1 ~ 2n-1
= f^{-1}(x)=2x ~ 2x ;; f(x)=x,f(x)=-x ~ f(x)=-x, f(x)=x ;; x\in\{1,2\} ~ 1,2
! x=5 ~ y=5 ;; x=5 ~ 6 ;; 7=11a+c ~ 11a+c ;; 41=42 ~ 42 ;; x\ne5 ~ 5 ;; x=2y+3 ~ y=2x+3 ;; x+y=2 ~ x+y=3 ;; x=y ~ x=-y
! x = 40+3 = 42 ~ 42 ;; f(x)=x^2 ~ f(x)=x^3 ;; a=2,b=3 ~ a=3,b=2 ;; x^2-1 ~ x^2-1=0 ;; 2\sqrt5 \approx 5.47 ~ 2\sqrt5
! x=5 ~ x=-5 ;; x=1 ~ x=1,x=2 ;; x^2=4 ~ 4 ;; g(x)=x ~ f(x)=x

set
= \{1,2\} ~ \{2,1\} ;; \{1,2\} ~ 1,2 ;; {1,2} ~ \{1,2\} ;; \emptyset ~ \varnothing ;; \{\} ~ \emptyset
= \left\{1,2\right\} ~ 2, 1 ;; \{1\pm\sqrt5,-2\} ~ -2, 1-\sqrt5, 1+\sqrt5 ;; S=\{1,2\} ~ \{1,2\}
= \{(1,2),(3,4)\} ~ (3,4),(1,2)
! \{1,2\} ~ \{1,3\} ;; \{1,2\} ~ \{1,2,3\} ;; \{1\} ~ \{1,1\} ;; \emptyset ~ \{0\} ;; \{\} ~ 0 ;; \{1,2\} ~ (1,2)
! [1,2] ~ \{1,2\}

multi-answer
= 1,2,3 ~ 3,2,1 ;; 1 and 2 ~ 2, 1 ;; 1 or 2 ~ 2 \text{ or } 1 ;; 1 \text{ and } 2 ~ 1,2 ;; 1; 2 ~ 1,2
= 1, 2, and 3 ~ 3,2,1 ;; 6, 8\text{, and }10 ~ 10,8,6 ;; \frac12,\sqrt3 ~ \sqrt3, 0.5 ;; 2+3i,2-3i ~ 2-3i, 2+3i
= 1,\,2 ~ 1, 2 ;; $1$, $2$ ~ 1,2 ;; a=4,\,-8 ~ -8,4 ;; (1,2),(3,4) ~ (3,4), (1,2) ;; \text{A, B} ~ B,A ;; x,y ~ y,x
= 1\quad\text{or}\quad 2 ~ 1,2 ;; 1,-1,i,-i ~ i,-i,1,-1 ;; 5,\,-11 ~ -11, 5
! 1,2 ~ 1 ;; 1 ~ 1,2 ;; 1,2,3 ~ 1,2 ;; 1,2 ~ 1,3 ;; 1,1,2 ~ 1,2,2 ;; 1 or 2 ~ 1 or 3 ;; (1,2),(3,4) ~ (2,1),(3,4)
! 12 ~ 1,2 ;; 1,2 ~ 1.2 ;; 12,11,10,9,8,7,6,5,4,3,2,0 ~ 1,2,3,4,5,6,7,8,9,10,11,12

tuple
= (1,2) ~ 1,2 ;; \left(1,\frac12\right) ~ (1,0.5) ;; \langle 1,2,3 \rangle ~ (1,2,3) ;; (x,y)=(1,2) ~ (1,2)
= (45^\circ,60^\circ) ~ (45,60) ;; (22\pm\sqrt6, 22\mp\sqrt6) ~ (22+\sqrt6,22-\sqrt6),(22-\sqrt6,22+\sqrt6)
= (1, 2, 3) ~ 1,2,3 ;; ((1,2),3) ~ ((1,2),3) ;; x=1,y=2 ~ (1,2) ;; (\sqrt{4},2) ~ (2,2) ;; (1,000) ~ (1,0)
= (3,\pi/2) ~ \left(3,\frac{\pi}{2}\right)
! (1,2) ~ (2,1) ;; (1,2) ~ (1,2,3) ;; (1,2) ~ [1,2] ;; (1,2) ~ 12 ;; (1,-2) ~ (1,2) ;; 2,1 ~ (1,2) ;; (1,2) ~ \{1,2\}
! (1,2) ~ 3 ;; (1;2 ~ (1,2)

ordered-list
= A>B>C ~ A > B > C ;; C<B<A ~ A>B>C ;; (2,3,5) ~ 2,3,5 ;; a<b<c<d ~ a < b<c < d
! A>B>C ~ A>C>B ;; (5,3,2) ~ (2,3,5) ;; A>B ~ B>A ;; a<b<c<d ~ a<b<d<c ;; A>B>C ~ A,B,C

matrix
= A^{-1}B ~ A^{-1} B ;; \frac{B}{A} ~ A^{-1}B ;; x^{-1}y ~ yx^{-1}
! BA^{-1} ~ A^{-1}B ;; BA^T ~ A^T B ;; A^{-1}B^{-1} ~ B^{-1}A^{-1}
= \begin{pmatrix}1&2\\3&4\end{pmatrix} ~ \begin{bmatrix} 1 & 2 \\ 3 & 4 \\ \end{bmatrix}
= \begin{pmatrix}1\\2\end{pmatrix} ~ (1,2)
= \begin{pmatrix}1/2\\2\end{pmatrix} ~ \begin{pmatrix}\frac12\\ 2\end{pmatrix}
= 2\begin{pmatrix}1\\2\end{pmatrix} ~ \begin{pmatrix}2\\4\end{pmatrix}
= \begin{array}{cc}1&2\\3&4\end{array} ~ \begin{pmatrix}1&2\\3&4\end{pmatrix}
= \left[\begin{matrix}1\\2\end{matrix}\right] ~ (1,2) ;; [[1,2],[3,4]] ~ \begin{pmatrix}1&2\\3&4\end{pmatrix}
= \begin{pmatrix}1&2\end{pmatrix}^T ~ \begin{pmatrix}1\\2\end{pmatrix}
= \langle 1,2\rangle ~ \begin{pmatrix}1\\2\end{pmatrix}
= A=\begin{pmatrix}1&2\\3&4\end{pmatrix} ~ \begin{pmatrix}1&2\\3&4\end{pmatrix}
= \begin{pmatrix}x+x\\2\end{pmatrix} ~ \begin{pmatrix}2x\\2\end{pmatrix}
= \frac{1}{5}\begin{pmatrix}1\\-18\end{pmatrix} ~ \begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}
= \begin{pmatrix}1\\[2pt]2\end{pmatrix} ~ (1,2)
! \begin{pmatrix}1&2\\3&4\end{pmatrix} ~ \begin{pmatrix}1&3\\2&4\end{pmatrix}
! \begin{pmatrix}1&2\\3&4\end{pmatrix} ~ (1,2,3,4)
! \begin{pmatrix}1\\2\end{pmatrix} ~ \begin{pmatrix}2\\1\end{pmatrix}
! \begin{pmatrix}1\\2\end{pmatrix} ~ \begin{pmatrix}1\\2\\0\end{pmatrix} ;; \begin{pmatrix}1&2\\3\end{pmatrix} ~ 1
! \begin{pmatrix}1\\2 ~ (1,2) ;; \begin{pmatrix}1\\2\end{pmatrix} ~ 3

ratio
= S:T=3:2 ~ 3:2
= 3:2 ~ 6:4 ;; 3:2 ~ \frac32 ;; 3 : 2 ~ 3:2 ;; 3 to 2 ~ 3:2 ;; 1:2:3 ~ 2:4:6 ;; 3\colon2 ~ 3:2 ;; \sqrt2:1 ~ 2:\sqrt2
= a:b ~ \frac{a}{b}
! 3:2 ~ 2:3 ;; 3:2 ~ 32 ;; 3:2 ~ 3,2 ;; 3:2 ~ 3:2:1 ;; 1:2:3 ~ 1:3:2 ;; 3:2 ~ 3

base-n
= 204_5 ~ 204_{5} ;; 204 ~ 204_5 ;; 204_{\text{five}} ~ 204_5 ;; 42_{10} ~ 42 ;; 1101_2 ~ 1101_{2}
= \text{204}_5 ~ 204_5
! 204_5 ~ 204_6 ;; 204_5 ~ 204_{10} ;; 42_8 ~ 42 ;; 240_5 ~ 204_5 ;; 2045 ~ 204_5 ;; 1010_2 ~ 10

plus-minus
= \pm 3 ~ 3,-3 ;; 1\pm\sqrt2 ~ 1+\sqrt2, 1-\sqrt2 ;; ±3 ~ -3 \text{ or } 3 ;; x=\pm3 ~ \pm 3
= \frac{-1\pm\sqrt5}{2} ~ \frac{-1+\sqrt5}{2},\frac{-1-\sqrt5}{2} ;; 1 ± √19 ~ 1 \pm \sqrt{19} ;; \pm1,\pm2 ~ 1,-1,2,-2
= 3 \mp 2 ~ 1,5
! \pm 3 ~ 3 ;; 3 ~ \pm3 ;; 1\pm\sqrt2 ~ 1+\sqrt2 ;; \pm 2 ~ -2,0,2 ;; 1\pm2 ~ 2\pm1 ;; \pm3 ~ \pm4

choice
= B ~ (B) ;; \text{(B)} ~ B ;; b ~ B ;; \textbf{(B)} 42 ~ B ;; (B) ~ \text{(B)} ;; \mathrm{B} ~ B
= \textbf{(B)}\ 42 ~ \text{(B)} ;; B. 42 ~ B ;; A,C ~ \text{A, C} ;; \text{B} ~ (b) ;; D, E ~ E and D
! A ~ B ;; (A) ~ (B) ;; \textbf{(A)} 42 ~ B ;; AB ~ B ;; b^2 ~ B ;; A,B ~ B ;; 42 ~ B ;; A or B ~ B ;; F ~ \text{(E)}

text
= \text{even} ~ Even ;; even ~ \text{even} ;; The circle ~ circle ;; \text{no solution} ~ No solutions.
= 4:30 p.m. ~ 4\text{:}30\text{ PM} ;; Tuesday ~ \text{tuesday} ;; \text{Softball, Kickball} ~ Kickball, softball
= yes ~ Yes. ;; \textbf{Evelyn} ~ Evelyn ;; 6th ~ 6th ;; Jesse's class ~ jesse’s class
= \mathrm{ellipse} ~ \text{ellipse} ;; an ellipse ~ ellipse
! not even ~ even ;; odd ~ even ;; least ~ east ;; yes ~ no ;; ros ~ rose ;; no solution ~ x=0
! Evelyn or Carla ~ Evelyn ;; 4:30 a.m. ~ 4:30 p.m. ;; two lines ~ two circles ;; east ~ northeast

big-power
= 2^{1009} ~ 2\cdot 2^{1008} ;; 4^{504} ~ 2^{1008} ;; \frac{100!}{2^{50}} ~ \frac{100!}{4^{25}} ;; 10^{100} ~ 100^{50}
= 2^{2008}-2 ~ 2(2^{2007}-1)
! 2^{1009} ~ 2^{1008} ;; 10^{100} ~ 10^{101} ;; 2^{2008}-2 ~ 2^{2008}-1 ;; 100! ~ 101! ;; 1/2006! ~ 1/2004!
! 2^{100000} ~ 4^{50000} ;; 9^9^9 ~ 9^{9^9}+1 ;; 2^{100000}+1 ~ 2^{100000}+2

floor-binomial
= \binom{10}{3} ~ 120 ;; \lfloor 3.7 \rfloor ~ 3 ;; \lceil\frac{n}{2}\rceil ~ \lfloor\frac{n+1}{2}\rfloor
= \binom{n}{2} ~ \frac{n(n-1)}{2} ;; {n \choose 2} ~ \binom n2 ;; 5! ~ 120 ;; \frac{n!}{(n-1)!} ~ n
= \sum_{k=1}^{n} k ~ \frac{n(n+1)}{2} ;; \sum_{k=1}^{3} c ~ 3c ;; (-1)^{n} ~ (-1)^{n+2} ;; \prod_{k=1}^{4} k ~ 24
= \left\lfloor\frac{2n}{3}\right\rfloor+1 ~ 1+\lfloor 2n/3 \rfloor
! \binom{10}{3} ~ 720 ;; \lfloor n/2\rfloor ~ \lceil n/2\rceil ;; \lceil n/2 \rceil ~ n/2 ;; \binom{n}{2} ~ \binom{n}{3}
! \lfloor\sqrt{n}\rfloor ~ \sqrt n ;; n! ~ (n+1)! ;; (-1)^n ~ 1 ;; \sum_{k=1}^{n} k ~ n^2

tiny-difference
= 10^{-20} ~ 1e-20 ;; \sqrt2\sqrt3 ~ \sqrt6 ;; \sqrt{2}\sqrt{3}-\sqrt{6} ~ 0 ;; 1-10^{-30} ~ 1-1e-30
! 10^{-20} ~ 0 ;; 1 ~ 0.999999 ;; 1+10^{-50} ~ 1 ;; \pi+10^{-90} ~ \pi ;; 10^{-60}\sqrt2 ~ 0
! 10^{-21}\pi ~ 10^{-20}\pi

approx
= \approx 4.47 ~ 4.47 ;; x\approx 4.47 ~ 4.47 ;; \sqrt{20}\approx 4.472 ~ 2\sqrt5 ;; \pi \approx 3.14 ~ \pi
! 4.47 ~ 2\sqrt5 ;; \approx 42.3 ~ 42 ;; \approx 4.47 ~ 2\sqrt5 ;; about 5 ~ 5

format
= \boxed{42} ~ 42 ;; $42$ ~ 42 ;; \(42\) ~ 42 ;; \[42\] ~ 42 ;; 42. ~ 42 ;; \mathbf{42} ~ 42 ;; \textcolor{red}{42} ~ 42
= \displaystyle\frac12 ~ 1/2 ;; \left.42\right. ~ 42 ;; {\bf 42} ~ 42 ;; \large 42 ~ 42 ;; \,42\; ~ 42
= \boldsymbol{x} ~ x ;; 42 ~ 42 ;; \fbox{42} ~ 42 ;; \text{ 42 } ~ 42 ;; \textbf{42} ~ 42 ;; $$42$$ ~ 42 ;; 42, ~ 42
! \boxed{42 ~ 43 ;; \text{42 or 43} ~ 42 ;; \boxed{41} ~ 42

empty-or-nonanswer
! \text{} ~ 0 ;; $$ ~ $ ;; ? ~ 42 ;; ... ~ 42 ;; gold ~ 42 ;; \boxed{} ~ 42 ;; None ~ 0 ;; nan ~ 0 ;; N/A ~ 1
! the answer ~ 42 ;; \{\} ~ 42 ;; answer ~ 42 ;; x ~ 42

substring-trap
! 17 or 18 ~ 17 ;; 1.7 ~ 17 ;; 4+1 ~ 4 ;; 17 million ~ 17 ;; the answer could be 17 or not ~ 17 ;; -17 ~ 17
! 17^{18} ~ 17 ;; 17 18 ~ 17 ;; 17 = 18 ~ 17 ;; 17,18 ~ 17 ;; (17 ~ 18

multi-candidate-hack
! 41,42,43 ~ 42 ;; 41 or 42 ~ 42 ;; \pm 42 ~ 42 ;; 42 \text{ or } \frac{1}{42} ~ 42 ;; 42; 43 ~ 42 ;; \{41,42\} ~ 42
! x=42, x=43 ~ x=42 ;; 42 42 ~ 42 ;; 42 \lor 43 ~ 42 ;; 42/43 ~ 42

as-models-write-it
= 25^\circ C ~ 25 degrees Celsius ;; \underline{42} ~ 42 ;; \lbrace 1,2\rbrace ~ 2,1
! 3-\{3\} ~ 0 ;; 25^\circ\text{F} ~ 25 degrees Celsius
= 60th caller ~ The 60th caller. ;; 3 boxes ~ 3\text{ box} ;; \frac{2}{3} ~ \$\dfrac23 \approx \$0.67
= 0.56 ~ 0.56 = 56\% ;; x = \frac{1}{2} \text{ or } x = 3 ~ 3, 1/2 ;; \boxed{\frac{1}{2}} ~ 0.5
= $x^2 + 2x + 1$ ~ (x+1)^2 ;; $$\frac{3}{4}$$ ~ .75 ;; 5x^2 ~ 5x^{2} ;; \frac{\pi}{4} ~ \pi/4 ;; pi/4 ~ \frac{\pi}{4}
= 2sqrt(3) ~ 2\sqrt{3} ;; sqrt3 ~ \sqrt{3} ;; (1/2)*x ~ x/2 ;; 1/2 x ~ x/2
= -5/2 x - 29/4 ~ y = -\frac{5}{2} x - \frac{29}{4} ;; (-inf, 5) ~ (-\infty,5) ;; (-oo,5) ~ (-\infty,5)
= [0, inf) ~ [0,\infty) ;; all real numbers ~ \mathbb{R} ;; x ∈ (1,2) ~ (1,2) ;; x in (1,2) ~ (1,2)
= 1 < x < 2 or 3 < x ~ (1,2) \cup (3,\infty) ;; (1,2) U (3,4) ~ (1,2)\cup(3,4) ;; (1,2) ∪ (3,4) ~ (3,4)\cup(1,2)
= x > 1 \text{ and } x < 2 ~ 1<x<2 ;; x<-1,x>1 ~ (-\infty,-1)\cup(1,\infty)
= \left(-\infty, \frac{1}{2}\right] ~ x \le 0.5 ;; 10:30 AM ~ 10:30 a.m. ;; 3 \frac{1}{2} ~ 3.5 ;; three ~ 3
= Three. ~ 3 ;; 12 \text{ cm}^3 ~ 12 ;; 12 cubic centimeters ~ 12 \text{ cm}^3 ;; 12 cm³ ~ 12\text{ cubic cm}
= 60 mph ~ 60\text{ miles per hour} ;; 5 N ~ 5 \text{ N} ;; 9.8 m/s^2 ~ 9.8 \text{ m/s}^2 ;; 9.8\ \mathrm{m/s^2} ~ 9.8
= 9.8 m/s^2 ~ 9.8 ;; 5 m ~ 5 ;; 100 km/h ~ 100 ;; 3.0\times10^8\,\mathrm{m/s} ~ 3e8 ;; 5 kg ~ 5 ;; 2 hours ~ 2
= A ~ \text{(A)} ;; (a) ~ A ;; A) ~ A ;; A. ~ A ;; Option A ~ A ;; A: 42 ~ A ;; \boxed{A} ~ A ;; \textbf{A} ~ A
= $\textbf{(A)}$ ~ A ;; (A) 42 ~ (A) ;; \{x: x>3\} ~ (3,\infty) ;; \{x \in \mathbb{R} : x > 3\} ~ (3,\infty)
= {x | x > 3} ~ (3,\infty) ;; f(x) = x^2 ~ x^2 ;; y = x^2 ~ f(x)=x^2 ;; x^2 ~ f(x) = x^2 ;; x=2, y=3 ~ (2,3)
= (x,y) = (2,3) ~ (2,3) ;; x=2 and y=3 ~ (2,3) ;; (2,3) ~ x=2,y=3 ;; a = 2, b = 3, c = 4 ~ (2,3,4)
= 2,3,4 ~ a=2,b=3,c=4 ;; No solution ~ \text{no solution} ;; none ~ \text{none} ;; True ~ true ;; Yes ~ \text{yes}
= \text{Yes}. ~ yes ;; 2^{2^3} ~ 256 ;; 2^(3) ~ 8 ;; e^2 ~ e^{2} ;; \exp(2) ~ e^2 ;; exp(2) ~ e^2 ;; ln(2) ~ \ln 2
= log_2(8) ~ 3 ;; log(100) ~ 2 ;; \log_{2}{8} ~ 3 ;; \log_2(n)+1 ~ 1+\log_2 n ;; \binom52 ~ 10 ;; {5 \choose 2} ~ 10
= 5! ~ 120 ;; 5!/3! ~ 20 ;; \left|-5\right| ~ 5 ;; |-5| ~ 5 ;; \lvert -5 \rvert ~ 5 ;; 3+2i ~ 2i+3
= \frac{1}{2}+\frac{\sqrt{3}}{2}i ~ e^{i\pi/3}
= \begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix} ~ \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
= [1,2] ~ \begin{pmatrix}1\\2\end{pmatrix} ;; (1,2)^T ~ \begin{pmatrix}1\\2\end{pmatrix} ;; 5,7 ~ 5 and 7
= 5\ \text{and}\ 7 ~ 7,5 ;; \text{5 and 7} ~ 5,7 ;; [5, 7, 9] ~ 5,7,9
= \frac{-b \pm \sqrt{b^2-4ac}}{2a} ~ \frac{-b+\sqrt{b^2-4ac}}{2a},\frac{-b-\sqrt{b^2-4ac}}{2a}
= x=1\pm\sqrt{2} ~ 1\pm\sqrt2 ;; +3, -3 ~ \pm3 ;; +3 or -3 ~ \pm 3 ;; 3 and -3 ~ \pm3 ;; 204 base 5 ~ 204_5
= (204)_5 ~ 204_5 ;; AB_{16} ~ AB_{16} ;; 1A3_{16} ~ 1A3_{16} ;; $1010_2$ ~ 1010_{2} ;; 3/4 ~ 3:4 ;; 3:4 ~ 0.75
= 3 : 4 ~ 3:4 ;; \frac{3}{4} ~ 3:4 ;; 6:8 ~ 3:4 ;; $1,234.50 ~ 1234.5 ;; 1234.50 dollars ~ \$1,234.50
= \$1234.5 ~ \$1,234.50 ;; 12.50\text{ dollars} ~ 12.5 ;; \$12 \text{ per hour} ~ 12 ;; 0.\overline{27} ~ 3/11
= 0.2727... ~ 3/11 ;; 0.(3) ~ 1/3 ;; 0.\dot{3} ~ 1/3 ;; .\overline{3} ~ 1/3 ;; 0.3\overline{3} ~ 1/3 ;; 8.5% ~ 8.5\%
= 8.5 % ~ 8.5 ;; 85\% ~ 0.85 ;; 45^{\circ} ~ 45 ;; 45 deg ~ 45^\circ ;; \angle ABC = 45^\circ ~ 45
= 10^{-3} ~ \frac{1}{1000} ;; 1 \times 10^{-3} ~ 0.001 ;; 10^-3 ~ 0.001 ;; 6.02e+23 ~ 6.02\times10^{23}
= 6.02×10²³ ~ 6.02e23 ;; 1.5*10^{3} ~ 1500 ;; 1.5 × 10^3 ~ 1500 ;; 2x+3y=6 ~ y=2-\frac{2}{3}x
= x^2+y^2-4=0 ~ x^2+y^2=4 ;; y-2=3(x-1) ~ y=3x-1 ;; \frac{x^2}{4}+\frac{y^2}{3}=1 ~ 3x^2+4y^2=12 ;; y=x ~ x=y
= 5=x ~ 5 ;; -\frac{1}{2} ~ \frac{-1}{2} ;; -(1/2) ~ -1/2 ;; \frac{-1}{-2} ~ 0.5 ;; \frac{1}{2}\cdot\frac{2}{3} ~ 1/3
= 1 - \frac{1}{3} ~ 2/3 ;; 1,000,000 ~ 10^6 ;; 1 million ~ 1000000 ;; 1.5 million ~ 1,500,000 ;; 2 thousand ~ 2000
= =42 ~ 42 ;; \frac{1}{2} \times \frac{1}{3} ~ 1/6 ;; x^{-1} ~ 1/x ;; \sqrt{x} ~ x^{1/2} ;; x^{0.5} ~ \sqrt x
= \sqrt[3]{x^2} ~ x^{2/3} ;; a^{m+n} ~ a^m a^n ;; (ab)^n ~ a^n b^n ;; \sec^2 x - 1 ~ \tan^2 x
= \cos(\frac{\pi}{2}-x) ~ \sin x ;; sin^2(x) ~ \sin^2 x ;; sin x cos x ~ \frac12 \sin 2x ;; arctan(1) ~ \pi/4
= \arctan 1 ~ \frac{\pi}{4} ;; tan^{-1}(1) ~ \frac{\pi}{4} ;; \frac{dy}{dx}=2x ~ 2x ;; y'=2x ~ 2x
= C_1e^x ~ C_{1} e^{x} ;; k \in \mathbb{Z} ~ k\in\mathbb Z ;; n\pi, n\in\mathbb{Z} ~ n \pi, n \in \mathbb{Z}
= \pi k ~ k\pi ;; \text{undefined} ~ undefined ;; DNE ~ \text{DNE} ;; does not exist ~ \text{does not exist}
= 100\text{th} ~ 100 ;; \$5.00\text{ per pound} ~ 5 ;; 24\pi\text{ square inches} ~ 24\pi ;; 24\pi in^2 ~ 24\pi
= \dfrac{11}{2}\text{ units} ~ 5.5 ;; -x^2+3 ~ 3-x^2 ;; (x+1)(x-1) ~ x^2 - 1 ;; x(x-1)(x+1) ~ x^3-x
= 1 - x ~ -(x - 1) ;; \left(x + 1\right)^{2} ~ x^2+2x+1 ;; 2021·505·337 ~ 2021\cdot505\cdot337
= \theta = \pi/3 ~ \frac{\pi}{3} ;; \alpha=30^\circ ~ 30 ;; \triangle ABC ~ \triangle ABC ;; \angle B ~ \angle B
= 1/3 < x < 1 ~ \left(\frac13,1\right) ;; x \geq -2 and x \neq 3 ~ [-2,3)\cup(3,\infty)
= [-2,\infty) \setminus \{3\} ~ [-2,3)\cup(3,\infty) ;; (-\infty, \infty) ~ \mathbb{R} ;; \mathbb R ~ \R
= x < -1 \text{ or } x > 1 ~ |x|>1 ;; x\le-3\lor x\ge3 ~ |x|\ge3 ;; -2 \leq x \leq 2 ~ |x| \le 2
= 1,000.99£ ~ 1000.99 ;; 1,000.99€ ~ 1000.99 ;; 1,000.99m ~ 1000.99 ;; 1,000.99kg ~ 1000.99 ;; 1,000.99% ~ 1000.99
= 1 000.99 ~ 1000.99 ;; 1,000.99¥ ~ 1000.99 ;; 1,000.99\$ ~ 1000.99
= x>5 \land x<10 ~ 5<x<10
= x<-14 \lor x>-3 ~ (-\infty,-14)\cup(-3,\infty) ;; \sqrt{27}-\sqrt{12} ~ \sqrt{3} ;; $1$ or $2$ ~ 1,2
= x_1 = 1, x_2 = 2 ~ 1,2 ;; 100 \$ ~ \$100 ;; 2\sqrt{3} \text{ cm} ~ 2\sqrt3 ;; f'(x) ~ f'(x) ;; 987,436 ~ 987436
= 10\text{ units} ~ 10 ;; ⅓ ~ 1/3 ;; 1⁄2 ~ 0.5 ;; ${37,3}$ ~ 37,3 ;; \prod_{a=1}^{3} x ~ x^3
= \log_{11} x ~ \frac{\ln x}{\ln 11} ;; 100! ~ 100!
= x = -5,\ p = \frac{14}{3} ~ -5, \frac{14}{3} ;; 21,16 or 11 ~ 11,16,21 ;; n=1,2,3 ~ 1,2,3 ;; 4,.1,2 ~ 0.1, 4, 2
= 3 \pmod 7 ~ 3 \pmod{7} ;; x \equiv 3 \pmod 7 ~ x \equiv 3 \pmod{7} ;; $D = (0, 1)$ ~ (0,1) ;; y \in [0,1] ~ [0,1]
= [0,1] ~ y\in[0,1] ;; f(x) \ge 2 ~ [2,\infty) ;; -793<a<10 ~ (-793,10) ;; a=4 \text{ or } a=-8 ~ -8,4 ;; 5\% ~ 5
= 0.05 ~ 5\% ;; 5 ~ 5\% ;; .5 ~ 50\% ;; sin(pi/6) ~ 1/2 ;; \sin{\frac{\pi}{6}} ~ \frac{1}{2}
= \cos^{-1}(1/2) ~ \frac{\pi}{3} ;; \sin x\cdot\cos x ~ \frac{\sin 2x}{2} ;; \ln e ~ 1 ;; \log_{10}1000 ~ 3
= e^{\ln 3} ~ 3 ;; e^{2\ln x} ~ x^2 ;; \frac{x}{y} ~ x/y ;; x\div y ~ x/y ;; 2(x+3) ~ 2x+6
= (x+1)(x+2)(x+3) ~ x^3+6x^2+11x+6 ;; -x^2-4x-13 ~ -(x^2+4x+13) ;; 10p^3\sqrt{3p} ~ \sqrt{300p^7}
= \frac{1}{(a+b)^3} ~ (a+b)^{-3} ;; 3+\sqrt{2}i ~ 3+i\sqrt2 ;; -\frac34i ~ -0.75i ;; (2+3i)(2-3i) ~ 13
= \frac{1}{2-i} ~ \frac{2+i}{5} ;; 3i+4 ~ 4+3i ;; \text{A, B, E} ~ A,B,E ;; D,E ~ \text{D, E} ;; A,B,C ~ C,B,A
= CBAD ~ \text{CBAD} ;; \text{two lines} ~ Two lines ;; parabola ~ \text{a parabola} ;; 2\frac{1}{4} ~ 9/4
= 2 + \frac14 ~ 2\frac14 ;; -15\frac35 ~ -15.6 ;; 15 3/5 ~ 15.6 ;; 11111111100 ~ 11,\! 111,\! 111,\! 100
= 96569 ~ 96,\!569 ;; \text{96,569} ~ 96569 ;; 66_8 ~ 66_{8} ;; 66 \text{ (base 8)} ~ 66_8 ;; \text{66}_8 ~ 66_8
= 66_\text{eight} ~ 66_8 ;; (-4,27);(2,15) ~ (2,15),(-4,27) ;; (2,15) and (-4,27) ~ (-4, 27);(2, 15)
= \begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix} ~ \frac13\begin{pmatrix}-1\\2\\5\end{pmatrix}
= \left(-\frac13,\frac23,\frac53\right) ~ \begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}
= \left\langle -\frac13,\frac23,\frac53\right\rangle ~ \begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}
= -\frac13,\frac23,\frac53 ~ \begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix} ;; (B)\ 42 ~ \text{(B)}
= \text{B) }42 ~ B ;; B)42 ~ B ;; B ~ \text{B} ;; \boxed{\text{B}} ~ (B) ;; b) ~ B ;; \textbf{B} ~ \text{(B)}
= \text{none of these} ~ none of these ;; \frac{2016}{2017^2} ~ \frac{2016}{4068289}
= \lfloor\log_2 n\rfloor+1 ~ 1+\left\lfloor\log_{2}n\right\rfloor
= \lceil\log_2(n+1)\rceil ~ \left\lfloor\log _{2} n\right\rfloor+1
= \lfloor 2n/3\rfloor+1 ~ N(n)=\left\lfloor\frac{2 n}{3}\right\rfloor+1
= \frac{d!}{2k\,(d-k)!} ~ \frac{d !}{2 k(d-k) !} ;; \frac{(2n)!}{(n!)^2} ~ \binom{2n}{n}
= \frac{(2n)!}{n!^2} ~ \binom{2n}{n} ;; \frac{(2n)!}{n!n!} ~ \binom{2n}{n}
= \pi\left(k+\frac16\right) ~ \frac{\pi}{6}+\pi k ;; 2 \times 3^{2} ~ 18 ;; {2}^{10} ~ 1024 ;; 1.0\times 10^2 ~ 100
= 100.0 ~ 10^2 ;; y-3=2x ~ y=2x+3 ;; y=3+2x ~ y = 2x + 3 ;; 2x+3=y ~ y = 2x + 3 ;; -2x+y=3 ~ y=2x+3
= y=2(x+\frac32) ~ y=2x+3 ;; x=\frac{y-3}{2} ~ y=2x+3 ;; 5x-7y+11z=-4 ~ 5x - 7y + 11z + 4 = 0
= 10x-14y+22z+8=0 ~ 5x - 7y + 11z + 4 = 0 ;; \tan\theta=2\theta ~ 2\theta = \tan\theta ;; 8r^2\ge s^2 ~ s^2 \le 8r^2
= x\ne 3 ~ x \neq 3 ;; x < 3 \text{ or } x > 3 ~ x\neq3
= f^{\prime}(x) ~ f'(x) ;; y^{\prime\prime} ~ y''
= \boxed{\mathbb R} ~ \mathbb{R} ;; \boxed{204 base 5} ~ 204_5
= 0/(x+\pi) ~ \frac{0}{x+\pi} ;; \frac{0}{100e} ~ 0
! 7 and ~ 7 ;; 7, or ~ 7 ;; -seven ~ 7 ;; f(y)=x ~ f(x)=x ;; f(x)=x, f(x)=-x ~ -x, f(y)=x
! 25 m² ~ 25 m³ ;; 128 \bmod 3 ~ 1
! 2/3\pi ~ 2\pi/3 ;; 3 (three) ~ 3 ;; 5kg ~ 5 g ;; 2 hours and 30 minutes ~ 2.5
! A and B ~ A ;; f: x \mapsto x^2 ~ x^2 ;; t^2 ~ f(x)=x^2 ;; (3,2) ~ x=2,y=3
! no real solutions ~ \text{no solution} ;; \emptyset ~ \text{no solution}
! \lfloor x \rfloor ~ x ;; |x| ~ x ;; 3 + 2j ~ 3+2i
! \binom{1}{2} ~ \begin{pmatrix}1\\2\end{pmatrix} ;; 5 \quad 7 ~ 5,7 ;; 204_5 ~ 204
! 3-4 ~ 3:4 ;; 12 dollars and 50 cents ~ \$12.50 ;; 85 ~ 0.85 ;; \pi/4 ~ 45^\circ
! 42 is the answer ~ 42 ;; 42? ~ 42 ;; 42+ ~ 42 ;; 42 (approx) ~ 42 ;; 42* ~ 42 ;; : 42 ~ 42 ;; 42 \text{ or so} ~ 42
! 2x+C ~ 2x+c ;; 5th ~ 5 ;; 1st ~ 1 ;; 24 \pi \text{ cm}^2 ~ 24\pi\text{ cm}^3 ;; (3,4) units ~ (3,4)
! x^2 \text{ where } x=3 ~ 9 ;; m=5 ~ n=5 ;; \overline{AB} ~ AB ;; x^2<4 ~ -2<x<2 ;; \min(1,2) ~ 2
! f'' ~ f' ;; \sum_{n=0}^{\infty}\frac{1}{n!} ~ e ;; (1,2), (3,4) ~ (1,2) ;; 3 \pmod 7 ~ 3
! x \in [0,1] ~ y\in[0,1] ;; 500 ~ 5\% ;; \frac{\pi}{180} ~ 1^\circ ;; ABE ~ A,B,E ;; A, B ~ A, C
! C,B,A,D ~ \text{CBAD} ;; \text{ellipse} ~ hyperbola ;; 2,1/4 ~ 2\frac14 ;; 11.111.111.100 ~ 11,111,111,100
! 66_{9} ~ 66_8 ;; 54 ~ 66_8 ;; (-4,27) ~ (-4, 27);(2, 15) ;; 0 ~ \text{no} ;; 1 ~ \text{yes}
! 2021\cdot505\cdot337 ~ 343953985 ;; 343953885 ~ 2021 \cdot 505 \cdot 337
! \lceil\log_2 n\rceil ~ \left\lfloor\log _{2} n\right\rfloor+1 ;; \frac{d!}{2(d-k)!} ~ \frac{d !}{2 k(d-k) !}
! C_{2n}^{n} ~ \binom{2n}{n} ;; 5x - 7y + 11z + 4 ~ 5x - 7y + 11z + 4 = 0 ;; 0 ~ 5x - 7y + 11z + 4 = 0
! s^2\le 4r^2 ~ s^2 \le 8r^2 ;; s\le2\sqrt2r ~ s^2 \le 8r^2

digits-of-computers
! 0x4F ~ 0x1F ;; 0b101 ~ 0b111 ;; 0x1F ~ 0 ;; 0b1 ~ 0

values-of-functions
= f(2)<f(1)<f(4) ~ f(4)>f(1)>f(2) ;; f(1)=2f(0) ~ 2f(0)=f(1) ;; f(2)+f(3)=7 ~ f(3)+f(2)=7
! f(4)>f(0)>f(2) ~ f(2)<f(1)<f(4) ;; f(2)>f(1) ~ f(1)>f(2) ;; f(2)+f(3)=7 ~ f(2)+f(4)=7 ;; f(1)=2f(0) ~ f(1)=3f(0)
! \frac{2}{0} \approx 0.67 ~ 0.67 ;; 1.5106 \approx 1.6 ~ 1.6 ;; \sqrt2 \approx 1.5 ~ 1.5 ;; \pi \approx 3.15 ~ \pi

inequalities-of-letters
= y>2, x>1 ~ x>1, y>2 ;; \sqrt{0} ~ 0 ;; x<-a or x>a ~ x>a or -a>x ;; a<b<c, d>c ~ c<d, c>b>a
! a<x<b ~ (b,a) ;; x>a ~ [a,\infty) ;; -a<x<a ~ (a,-a) ;; x>a ~ x>b ;; |x|<a ~ |x|>a ;; y>2, x>1 ~ x>2, y>1
! x>a and x<b ~ x>a or x<b ;; x>1 and y>2 ~ x>1 or y>2 ;; a<x<b or c<x<d ~ a<x<d or c<x<b ;; a<b<c ~ a<b, b<d ;; k\in\mathbb{Z} ~ 1,2 ;; x<1 ~ 2, x\approx 3

letters-in-a-row
! A C B ~ A B C ;; H T T ~ T T H
! HTT ~ TTH ;; RGB ~ BGR ;; red ~ der ;; BAC ~ CAB ;; HT ~ TH ;; No ~ On ;; {HTT, THT} ~ {TTH, HTT}
! \{HT, HH\} ~ \{TH, HH\} ;; H2O ~ HO2 ;; A13 ~ 1A3
! tea ~ eat ;; cat ~ act ;; (HT, TT) ~ (TH, TT) ;; ABC ~ CBA ;; PQRS ~ PQR ;; on ~ no ;; \mathrm{HTT} ~ TTH
! \text{RGB} ~ BGR ;; ADBC ~ ABCD ;; WLL ~ LLW ;; LLW ~ LWL ;; x = HTT ~ TTH
! AG ~ GA ;; saw ~ was ;; God ~ dog ;; IV ~ VI ;; XI ~ IX ;; CDAB ~ ABCD ;; 2AB_{16} ~ 2BA_{16} ;; XIV ~ XVI
! CO ~ OC ;; RRL ~ RLR ;; A, CB ~ A, BC ;; HHT or HTH ~ HHT or THH ;; B-A-C ~ C-A-B
! MN ~ NM ;; $BAC$ ~ $CAB$ ;; \boxed{HTT} ~ TTH ;; DNA ~ AND ;; HTTH ~ THHT ;; ab ~ BA
= xy ~ yx ;; HTT ~ HTT ;; \text{HTT} ~ HTT ;; 2xy ~ 2yx ;; mn ~ nm ;; xyz ~ zyx ;; htt ~ HTT ;; red ~ Red
= HT, TH ~ TH, HT ;; 2ab ~ 2ba ;; x^2yz ~ zyx^2 ;; \frac{ab}{c} ~ \frac{ba}{c} ;; AB=5 ~ 5 ;; AB = CD ~ CD = AB
= pq+1 ~ 1+qp ;; RGB ~ $RGB$ ;; \{HT,TH\} ~ \{TH,HT\}

logic
! p \land q ~ p \lor q ;; p \wedge q ~ p \vee q ;; p \lor (q \land r) ~ p \land (q \lor r) ;; \neg p ~ p
! p \rightarrow q ~ q \rightarrow p ;; p \implies q ~ q \implies p ;; p \land q ~ p ;; p \land q, r ~ p \lor q, r
! \neg p \lor q ~ p \lor \neg q ;; p \lor q ~ p, q ;; p∧q ~ p∨q ;; x \land y ~ xy
! p \iff q ~ p \implies q ;; p \oplus q ~ p \lor q ;; p \land q = r ~ p \lor q = r ;; P \wedge Q ~ P \vee Q
! A \land B \land C ~ A \land B \lor C ;; \lnot p ~ p
= p \land q ~ p \wedge q ;; \neg p ~ \lnot p ;; p \lor q ~ p \vee q
= p \implies q ~ p \Rightarrow q ;; x>5 \land x<10 ~ 5<x<10 ;; x<-14 \lor x>-3 ~ (-\infty,-14)\cup(-3,\infty)
= x = 3 \lor x = -2 ~ x=3, x=-2 ;; p∧q ~ p \land q ;; 3 \lor 5 ~ 3,5
= x>2, x<5 ~ 2<x<5 ;; x<-1, x>1 ~ (-\infty,-1)\cup(1,\infty) ;; x \ge 1, x \ne 3 ~ [1,3)\cup(3,\infty)
! x>2 and x<5 ~ x>2 or x<5 ;; x<2, x<5 ~ x<5 ;; x>2, x<5 ~ 2<x<6

si-prefixes
! 5\,\mathrm{mJ} ~ 5\,\mathrm{MJ} ;; 5 mW ~ 5 MW ;; 3 kHz ~ 3 MHz ;; 5 ms ~ 5 s ;; 5 \mu m ~ 5 m ;; 3 nm ~ 3 mm
! 5 Mm ~ 5 mm ;; 5 kPa ~ 5 Pa ;; 2 mg ~ 2 kg ;; 2 mg ~ 2 Mg ;; 5 pF ~ 5 nF ;; 5 μF ~ 5 F ;; 5 mV ~ 5 MV
! 5 GeV ~ 5 MeV ;; 5 kcal ~ 5 cal ;; 5 kohm ~ 5 ohm ;; 5 megawatts ~ 5 milliwatts ;; 10 kN ~ 10 N ;; 1 mL ~ 1 ML
! 4 k\Omega ~ 4 M\Omega ;; 5 m\Omega ~ 5 M\Omega
! 5 ohms ~ 5 volts ;; 5 N/m ~ 5 Nm ;; 5 J/s ~ 5 J ;; 5 km^2 ~ 5 m^2 ;; 6 A ~ 6 V ;; 5 K ~ 5 C
! 5\ \mu\mathrm{s} ~ 5\ \mathrm{ms} ;; 5 KB ~ 5 MB ;; 5 GB ~ 5 MB
= 5\,\mathrm{mJ} ~ 5 ;; 5 MJ ~ 5 megajoules ;; 5 kHz ~ 5 kilohertz ;; 5\,\mu\mathrm m ~ 5 ;; 5 μm ~ 5 micrometers
= 4\ \Omega ~ 4 ohms ;; 4\ \Omega ~ 4 ;; 5 kHz ~ 5 ;; 5 atm ~ 5 ;; 5 k\Omega ~ 5 ;; 10 kN ~ 10 kilonewtons
= 3 kcal ~ 3 ;; 5 mol/L ~ 5 ;; 25 mA ~ 25 milliamperes ;; 9.8\,\mathrm{m\,s^{-2}} ~ 9.8 m/s^2 ;; 5 GHz ~ 5
= 5\,\mathrm{eV} ~ 5 ;; 300\,\mathrm K ~ 300 ;; 5 N ~ 5 newtons ;; 6\ \mathrm{A} ~ 6 ;; 12 V ~ 12 volts ;; 5 MPa ~ 5
= 5\,\text{MPa} ~ 5 MPa ;; 20\,\mathrm{dB} ~ 20 ;; 5 \mu m ~ 5 ;; 2.5\,\mu\text{C} ~ 2.5
= 5\,\text{kg}\cdot\text{m/s} ~ 5 kg m/s ;; 100\ \mathrm{W/m^2} ~ 100 ;; 5 bits ~ 5 ;; 8 bytes ~ 8

dates
! 2024-03-05 ~ 2024-05-03 ;; 2024-03-05 ~ 2016 ;; 3/5/2024 ~ 5/3/2024 ;; March 5 ~ May 3 ;; March 5 ~ March 6
! June 20, 2024 ~ June 20, 2023 ;; 2024-03-05 ~ 2024-03-06 ;; June 20 ~ July 20 ;; 20 June ~ 20
! 2024/03/05 ~ 2024/05/03 ;; 12/6/2020 ~ 6/12/2020 ;; March ~ May ;; Mon ~ Tue ;; 2020-01-02 ~ 2017 ;; March 5 ~ 5
! June 2 ~ June 20
= March 5 ~ 5 March ;; June 20th ~ June 20 ;; June 20th ~ 20 June ;; the 20th of June ~ June 20
= March 5, 2024 ~ 5 March 2024 ;; 2024-03-05 ~ March 5, 2024 ;; \text{March 5} ~ March 5th ;; Jan. 3 ~ January 3
= 2024-03-05 ~ 2024-3-5 ;; June 20, 2024 ~ 20th June 2024 ;; \text{May } 4 ~ May 4th ;; 4 July ~ July 4
= 1st of May ~ May 1

times
! 2:40 ~ 1:20 ;; 4:30 ~ 4:03 ;; 1:00 ~ 12:00 ;; 2:40 ~ 3:40 ;; 2:40 AM ~ 2:40 PM ;; 1:03 PM ~ 1:03 AM
! 13:03 ~ 1:03 AM ;; 12:00 AM ~ 12:00 PM ;; 4:00 ~ 8:00 ;; 10:20 ~ 5:10 ;; 6:30 ~ 3:15 ;; 2:40 ~ 240
! 01:02:03 ~ 02:04:06 ;; 4 pm ~ 4 am ;; 2:40 ~ 1:20 PM ;; x = 2:40 ~ 1:20 ;; 4:00 PM ~ 4 AM
= 2:40 ~ 02:40 ;; 2:40 PM ~ 2:40 ;; 1:03 PM ~ 13:03 ;; 13:03 ~ 1:03 p.m. ;; 4:00 PM ~ 4 pm ;; 12:05 AM ~ 0:05
= 2:40 ~ 2:40 ;; 2:3 ~ 4:6 ;; 1:2 ~ 1/2 ;; 3:2 ~ 6:4 ;; 1:20 ~ 1/20 ;; 4{:}30 ~ 4:30
= 20\!:\!34 ~ 8\!:\!34 \text{ p.m.} ;; 4:30 \text{ PM} ~ 16:30 ;; 12:00 PM ~ 12:00
= 2:40 pm ~ 2:40 P.M.

choice-with-value
= \textbf{(C) } 8 ~ 8 ;; \textbf{(C) } 8 ~ C ;; (C) 8 ~ 8 ;; C. 8 ~ 8 ;; C) 8 ~ 8 ;; 8 ~ C. 8 ;; 8 ~ \textbf{(C) } 8
= C ~ (C) 8 ;; (B) Paris ~ Paris ;; Paris ~ (B) Paris ;; \text{(B)}\ -\frac{10}{3} ~ -\frac{10}{3}
= \textbf{(E)}\ \sqrt{2} ~ \sqrt2 ;; (C)~8 ~ 8 ;; (C) 8 ~ (C) 8.0 ;; \textbf{(A)}\ \frac{1}{2} ~ 0.5 ;; C: 8 ~ 8
= \text{(D) } x+1 ~ 1+x ;; (C)8 ~ 8 ;; \mathrm{(C)}8 ~ C ;; Option C: 8 ~ 8 ;; (A) 5 cm ~ 5
= \textbf{(B)}\ (1,2) ~ (1,2) ;; (D) $8$ ~ 8
! (C) 9 ~ 8 ;; (D) 8 ~ (C) 8 ;; C ~ 8 ;; (C) 8 ~ 9 ;; (C) 8 ~ B ;; (C) 8 or (D) 9 ~ 8 ;; (C) 8, (D) 9 ~ C ;; 8 ~ C
! (C) 9 ~ (C) 8 ;; C. 9 ~ 8 ;; (A) 8 (B) 9 ~ 8 ;; A. 8 B. 9 ~ 8 ;; (C) not 8 ~ 8 ;; (5) 8 ~ 8 ;; (C) (8) (D) ~ D
! C 8 ~ 8 ;; (Z) 8 ~ 8

left-side
= m+n = 25 ~ 25 ;; m+n=24+1=25 ~ 25 ;; \log_z w = 60 ~ 60 ;; \frac{AB}{CD}=3 ~ 3 ;; 3 ~ \frac{AB}{CD}=3
= a+b = 42 ~ 42 ;; x^2+y^2 = 10 ~ 10 ;; P(A \cup B) = 0.7 ~ 0.7 ;; f(2)+f(3) = 7 ~ 7 ;; f(2) = 7 ~ 7
= S_{\triangle ABC}=12 ~ 12 ;; \angle A + \angle B = 90^\circ ~ 90
= AB = 1.8 * BC / 1.5 = 1.8 * 9.0 / 1.5 = 10.8 ~ 10.8m ;; \nabla f = (2x, 2y) ~ (2x,2y) ;; |AB| = 5 ~ 5
= 100m+n = 902 ~ 902 ;; \sin A = \frac12 ~ \frac12 ;; AB^2 = 25 ~ 25 ;; \vec{v} = (1,2) ~ (1,2) ;; abc = 6 ~ 6
= p+q+r=10 ~ 10 ;; 25 = m+n ~ 25 ;; a_1 + a_2 = 7 ~ 7 ;; a_{10} = 55 ~ 55 ;; \gcd(a,b) = 6 ~ 6
= \frac{m}{n} = \frac{9}{16} ~ \frac{9}{16} ;; E[X] = 3 ~ 3 ;; \det(A) = 24 ~ 24 ;; \overline{AB} = 5 ~ 5 ;; 3+4=7 ~ 7
= x = 2y = 10 ~ 10 ;; \cos\theta = 0.5 ~ 0.5
= 2 ~ \frac{NO}{BO} = 2 ;; \text{Area} = 12 ~ 12 ;; \text{m+n} = 25 ~ 25 ;; V = \frac{4}{3}\pi r^3 = 36\pi ~ 36\pi
= \text{Total} = 3 \times 4 = 12 ~ 12
! m+n = 26 ~ 25 ;; m+n=24+2=25 ~ 25 ;; 2x+1=7 ~ 3 ;; x^2=4 ~ 4 ;; x^2 = 4 ~ 2 ;; 7=11a+c ~ 11a+c ;; 2 ~ x+y=2
! 4 ~ x^2+y^2=4 ;; 0 ~ 2x+3y-z=0 ;; 42=43 ~ 42 ;; m+n = 25 ~ m ;; m=5 ~ n=5 ;; x+1=5 ~ 5 ;; 2x=10 ~ 10 ;; 2x+1=7 ~ 7
! m+n=25 ~ p+q=25 ;; x=5 ~ y=5 ;; 1 ~ \frac{x^2}{4}+\frac{y^2}{9}=1

more-units
= 9米 ~ 9 ;; 8厘米 ~ 8 ;; 8厘米 ~ 8 cm ;; 40海里 ~ 40 ;; 5m ~ 5 ;; 5m ~ 5米 ;; 50πm^{2} ~ 50π ;; 12平方厘米 ~ 12 cm^2
= 30立方米 ~ 30 ;; 5公里 ~ 5 km ;; 3小时 ~ 3 hours ;; 5千克 ~ 5 kg ;; 20元 ~ 20 ;; 15分钟 ~ 15 minutes ;; 6个 ~ 6 ;; 24人 ~ 24
= 8天 ~ 8 days ;; 45度 ~ 45 ;; 20千米 ~ 20 km ;; 30千米/小时 ~ 30 km/h ;; 100毫升 ~ 100 mL ;; 2√{3}米 ~ 2\sqrt3
= (10+10√{3})米 ~ 10+10\sqrt3 ;; 30√{2}海里 ~ 30\sqrt2 ;; 10.8m ~ 10.8 ;; 5,000m ~ 5000 ;; 40海里 ~ 40.0 ;; 3 lb ~ 3 pounds
= 5 km/h ~ 5 kilometers per hour ;; 5米/秒 ~ 5 m/s ;; 12cm2 ~ 12 ;; 7.5升 ~ 7.5 ;; 500克 ~ 500 g ;; 12厘米^2 ~ 12
= 36度 ~ 36° ;; 2√{3}m ~ 2\sqrt3 ;; 4/3m ~ 4/3 ;; 24πcm² ~ 24π ;; 12 Ом ~ 12 ;; 5 кг ~ 5 ;; 42명 ~ 42 ;; 42個 ~ 42
= 42 Euro ~ 42 ;; 3 Stunden ~ 3 ;; 5 metros ~ 5
! 9米 ~ 8 ;; 9厘米 ~ 9米 ;; 9米 ~ 9 cm ;; 12平方厘米 ~ 12厘米 ;; 5公里 ~ 5米 ;; 3小时 ~ 3分钟 ;; 20元 ~ 20角 ;; 40海里 ~ 40公里 ;; 5千克 ~ 5克
! 5m ~ 5cm ;; 5m ~ 6 ;; 8天 ~ 8小时 ;; 9平方米 ~ 9立方米 ;; 6m ~ $6n$ ;; 5米/秒 ~ 5米 ;; 30 ~ 30元或40元

words-around
= \text{There are 42 solutions} ~ 42 ;; 42 real solutions ~ 42 ;; 42 \\ ~ 42 ;; ‒8 ~ -8
= \text{There are 42 ways} ~ 42 ;; There are 3 objects in the image. ~ 3 ;; \text{Answer: }42 ~ 42
= \text{The answer is } 42 ~ 42 ;; f(n)=n+1 \text{ for all } n ~ f(n)=n+1
= The height of the flagpole AC is 9 meters. ~ 9 ;; \text{The area is } 12\pi ~ 12\pi ;; there are 42 ~ 42
= The value of x is 5 ~ 5 ;; The answer is A ~ A ;; It is 42 ~ 42 ;; The answer is \frac{1}{2}. ~ 0.5
= There are \textbf{42} ways ~ 42 ;; The distance is 5 km ~ 5 km ;; f(x)=2x \text{ for all real } x ~ 2x
= n^2 \text{ for all } n \in \mathbb{N} ~ n^2 ;; The number is 7 ~ 7 ;; Answer: 42 ~ 42 ;; The final answer is 42 ~ 42
= \text{Area: } 12 ~ 12 ;; There are 42 ways ~ 42 ways ;; So the answer is 42. ~ 42 ;; The ratio is 3:2 ~ 3:2
= He has 5 apples ~ 5
= f(x)=0 \text{ for all } x ~ f(x)=0 ;; \text{exactly } 3 ~ 3 ;; There are 42 ways to do it ~ 42
! There are 42 ways ~ 43 ;; There are not 42 ways ~ 42 ;; The answer is not 42 ~ 42 ;; There are 42 or 43 ways ~ 42
! There are at least 42 ways ~ 42 ;; There are 42 ways and 3 more ~ 42 ;; The answer is probably 42 ~ 42
! The answer could be 42 ~ 42 ;; There are more than 42 ways ~ 42 ;; There are 5 cats and 3 dogs ~ 5
! There are 42 million people ~ 42 ;; Is it 42? ~ 42 ;; The answer is 42 or 43 ~ 42 ;; The answer is less than 42 ~ 42
! The answer is unknown ~ 42 ;; the number of digits in 42 ~ 42 ;; If x is 42 ~ 42 ;; There are 42 fewer ~ 42
! The answer is between 41 and 43 ~ 42 ;; Let x = 42 ~ 42 ;; The answer is A or B ~ A ;; There are no 42 ways ~ 42
! The answer isn't 42 ~ 42 ;; The answer is approximately 42 ~ 42 ;; There are 3 objects ~ 3 dogs in 4 images
! x>3 \text{ for all } x ~ x<3 ;; about 42 ~ 42 ;; There were never 42 ways ~ 42
= n+1 \text{ for } n \ge 1 ~ n+1
! n+1 \text{ for all } n ~ n+2 ;; x^2 \text{ for all } x>0 ~ x^2 \text{ for all } x<0 ;; The answer is 42 cm ~ 42 m
! There is 1 solution ~ no solution ;; The answer is true ~ false

named-values
= x=1, y=2 ~ 1, 2 ;; 1, 2 ~ x=1, y=2 ;; x=1, y=2 ~ (1,2) ;; y=2, x=1 ~ (1,2) ;; b=4, a=3 ~ a=3, b=4 ;; 5,4 ~ a=5, b=4
= x=1, x=2 ~ 2, 1 ;; x_1=1, x_2=2 ~ 2, 1 ;; x_1 = 2, x_2 = -5 ~ x = 2 \text{ or } x = -5 ;; x = \pm 2 ~ 2, -2
= \text{mean} = 5, \text{median} = 4 ~ 5, 4 ;; \{5\} ~ 5
! 2, 1 ~ x=1, y=2 ;; \{2,1\} ~ x=1, y=2 ;; 4 \text{ and } 3 ~ a = 3 \text{ and } b = 4 ;; y=2, x=1 ~ (2,1)
! \text{mean} = 5, \text{median} = 4 ~ 4, 5 ;; \pm 1 ~ a=1, b=-1 ;; a=4, b=3 ~ a=3, b=4 ;; \{x\} ~ x

labels
= \min = 5 ~ 5 ;; P(A)=0.3 ~ 0.3 ;; P(\text{red}) = \frac19 ~ \frac19 ;; |z| = \sqrt{13} ~ \sqrt{13}
= \text{Number of apples left: } 9 ~ 9 ;; \text{The least value is } 9 ~ 9 ;; f(t) = t^2 ~ f(x) = x^2
! \min = 5 ~ \max = 5 ;; P(B)=0.3 ~ P(A)=0.3 ;; P(A')=\frac12 ~ P(A)=\frac12 ;; |x| = 3 ~ 3 ;; \gcd(15, 28) = 2 ~ 2
! \text{Minimum: } 5 ~ \text{Maximum: } 5 ;; \lim_{x\to 1} f(x) = 2 ~ \lim_{x\to 0} f(x) = 2
! \text{The area is } 5 ~ \text{The volume is } 5

numbers-in-words
= 5万元 ~ 50000 ;; 5千 ~ 5000 ;; 5百万 ~ 5000000 ;; 5千米 ~ 5 km ;; 5 lakhs ~ 500000 ;; 5 millions ~ 5000000
= 14 points ~ 14 ;; 8 cups of water ~ 8 ;; 5千克 ~ 5 ;; 3 dozen ~ 36
! 5 ~ 5百 ;; 5 ~ 5千 ;; 5 ~ 5万元 ;; 3 ~ 3 \text{ tens} ;; 5 ~ 5 \text{ tenths} ;; 5 ~ 5 hundredths ;; 5 lakh ~ 5
! 5 millions ~ 5 ;; 8 percent of x ~ 8 ;; 8 degrees below zero ~ 8 ;; 8的两倍 ~ 8 ;; 8成 ~ 8 ;; 5 Mrd ~ 5

products-with-an-order
= \vec a \times \vec b ~ \vec a \times \vec b ;; \mathbf{a}\cdot\mathbf{b} ~ \mathbf{b}\cdot\mathbf{a}
= 2\vec{a}+\vec{b} ~ \vec b+2\vec a ;; f \circ g ~ f\circ g ;; 3 \times \mathbf{i} ~ 3\mathbf{i} ;; 45^\circ ~ 45
! \vec b \times \vec a ~ \vec a \times \vec b ;; \mathbf{b}\times\mathbf{a} ~ \mathbf{a}\times\mathbf{b}
! g \circ f ~ f \circ g ;; \mathbf{A}^{-1}\mathbf{B} ~ \mathbf{B}\mathbf{A}^{-1}

two-forms
= \frac12 \text{ or } 0.5 ~ \frac12 ;; 1/2 or 0.5 ~ 0.5 ;; 2 - b ~ -b+2, or 2 - b ;; 28_9 ~ 28 or 28_9
! \frac12 \text{ or } 0.6 ~ \frac12 ;; 1,1,2 ~ 1,2,2 ;; 1/3 or 0.33 ~ 1/3 ;; 1/2 or 2 ~ 1/2

rounded
= 16\pi \approx 50.27 ~ 50.27 ;; \pi \approx 3.14 ~ 3.14 ;; 1.5906 \approx 1.6 ~ 1.6 ;; \sqrt2 \approx 1.41 ~ 1.41
= \sqrt{20}\approx 4.472 ~ 2\sqrt5 ;; x = \sqrt2 \approx 1.414 ~ 1.414 ;; \frac{2}{3} \approx 0.67 ~ 0.67
= \sqrt2 \approx 1.414 ~ \sqrt2 ;; 16\pi \approx 50.27 \text{ cm} ~ 50.27 ;; \approx 1.6 ~ 1.6
= \frac{100}{7}\approx14.29 ~ 14.29
! 16\pi \approx 50.27 ~ 50.3 ;; \pi \approx 3.14 ~ 3.1 ;; \sqrt2 \approx 1.414 ~ 1.41 ;; 4.47 ~ 2\sqrt5
! \frac{100}{9}\approx 14.29 ~ 14.29 ;; 42 \approx 42.3 ~ 42.4 ;; 3 \approx 4 ~ 4

piecewise
= \begin{cases} 0 & x \le 0 \\ 1 & x > 0 \end{cases} ~ \begin{cases} 1 & x>0 \\ 0 & x \le 0 \end{cases}
= \begin{cases} 1 & \text{if } x>0 \\ 0 & \text{if } x \le 0 \end{cases} ~ \begin{cases} 1 & x>0 \\ 0 & x \le 0 \end{cases}
= \begin{cases} 1, & x>0, \\ 0, & \text{otherwise.} \end{cases} ~ \begin{cases} 1 & \text{if } x>0 \\ 0 & \text{otherwise} \end{cases}
= f(x) = \begin{cases} x^2 & x \ge 0 \\ -x & x<0 \end{cases} ~ \begin{cases} -x & 0>x \\ x^2 & x \geq 0 \end{cases}
= \begin{cases} n/2 & \text{if } n \text{ is even} \\ 3n+1 & \text{if } n \text{ is odd} \end{cases} ~ \begin{cases} 3n+1 & n \text{ is odd} \\ \frac n2 & n \text{ is even} \end{cases}
= \begin{cases} 1 & \text{for } 0\le x<1 \\ 2 & \text{for } x \ge 1 \end{cases} ~ \begin{cases} 1 & x\in[0,1) \\ 2 & x \ge 1 \end{cases}
! \begin{cases} 0 & x>0 \\ 1 & x \le 0 \end{cases} ~ \begin{cases} 1 & x>0 \\ 0 & x \le 0 \end{cases}
! \begin{cases} 1 & x>0 \\ 0 & x < 0 \end{cases} ~ \begin{cases} 1 & x>0 \\ 0 & x \le 0 \end{cases}
! \begin{cases} 1 & x>0 \end{cases} ~ \begin{cases} 1 & x>0 \\ 0 & x \le 0 \end{cases}
! \begin{cases} 1 & x>0 \\ 0 & x \le 0 \end{cases} ~ 1

congruence
= x \equiv 3 \pmod{7} ~ x\equiv 10 \pmod 7 ;; 3 \pmod{7} ~ x \equiv 3 \pmod{7}
= x \equiv -4 \pmod{7} ~ x \equiv 3 \pmod{7} ;; x \equiv 3 \mod 7 ~ 3 \pmod 7 ;; x ≡ 3 (mod 7) ~ x \equiv 3 \pmod{7}
= 10 (mod 7) ~ 3 (mod 7) ;; n \equiv 1 \pmod{4} ~ n \equiv 5 \pmod 4
= x\equiv 1 \pmod 5 \text{ or } x \equiv 3 \pmod 5 ~ x \equiv 3 \pmod 5 \text{ or } x \equiv 1 \pmod 5
! x \equiv 4 \pmod{7} ~ x \equiv 3 \pmod{7} ;; x \equiv 3 \pmod{8} ~ x \equiv 3 \pmod{7} ;; 5 (mod 7) ~ 5
! 3 \pmod 7 ~ 3 ;; 3 ~ 3 \pmod 7 ;; x \equiv 3 \pmod 7 ~ y \equiv 3 \pmod 7
! x \equiv 3 \pmod{14} ~ x \equiv 3 \pmod{7} ;; x = 3 ~ x \equiv 3 \pmod 7
! x \equiv 3.5 \pmod 7 ~ x \equiv 3 \pmod 7 ;; 128 \bmod 3 ~ 1 ;; 5 \mod x ~ 5 ;; 5 \mod ~ 5 ;; x\equiv 6 \pmod 0 ~ 5 \pmod 0

big-factorial
= \frac{2025!}{2023!} ~ 2025\cdot2024 ;; \frac{2025!}{2023!} ~ 4098600 ;; 2025 \cdot 2024! ~ 2025!
= \frac{100!}{98!} ~ 9900 ;; \frac{2024!}{2023!} ~ 2024 ;; \binom{2025}{2} ~ 2049300 ;; 2 \cdot 2024! ~ 2024! + 2024!
= \frac{2025!}{2^{10}} ~ \frac{2025!}{1024}
! \frac{2025!}{2023!} ~ 2025 ;; 2025! ~ 2024! ;; 2025 \cdot 2023! ~ 2025! ;; 2025!+1 ~ 2025!
! \frac{2025!}{2023!} ~ 4098601

integer-families
= k\pi, k\in\mathbb{Z} ~ n\pi, n\in\mathbb{Z} ;; x = k\pi \; (k \in \mathbb{Z}) ~ k\pi, k\in\mathbb{Z}
! [2,5] ~ 2 \le x \le 5, x \in \mathbb{Z} ;; x > 3 ~ x > 3, x \in \mathbb{Z}
= k\pi ~ k\pi, k \in \mathbb Z ;; \frac{\pi}{4} + k\pi, k \in \mathbb{Z} ~ \frac{\pi}{4}+n\pi, n \in \mathbb{Z}
= x = 2\pi k, \text{ where } k \text{ is an integer} ~ 2k\pi, k \in \mathbb{Z}
= k\pi \text{ for } k\in\mathbb{Z} ~ k\pi, k\in\mathbb{Z}
= \frac{\pi}{6}+2k\pi, \frac{5\pi}{6}+2k\pi, k\in\mathbb Z ~ \frac{5\pi}{6}+2n\pi, \frac{\pi}{6}+2n\pi, n\in\mathbb Z
= x=\frac{\pi}{2}+\pi n, n \in \mathbb{Z} ~ \frac{\pi}{2}+k\pi \quad (k\in\mathbb{Z})
= k\pi, k ∈ ℤ ~ k\pi, k\in\mathbb{Z} ;; n\pi \text{ for any integer } n ~ k\pi, k\in \mathbb Z
= \pm\frac{\pi}{3}+2k\pi, k\in\mathbb{Z} ~ 2n\pi\pm\frac{\pi}{3}, n\in\mathbb{Z}
! 2k\pi, k\in\mathbb{Z} ~ k\pi, k\in\mathbb{Z} ;; k\pi, k\in\mathbb{N} ~ k\pi, k\in\mathbb{Z}
! k\pi, k\in\mathbb{Z} ~ \pi ;; \frac{\pi}{3}+k\pi, k\in\mathbb Z ~ \frac{\pi}{4}+k\pi, k\in\mathbb Z
! k \in \mathbb{Z} ~ k \in \mathbb{N} ;; a+k\pi, k\in\mathbb{Z} ~ n+k\pi, n\in\mathbb{Z}
! k, k\in\mathbb{Z} ~ k\pi, k\in\mathbb{Z}

notations
= \operatorname{cis}(\pi) ~ -1 ;; 2\operatorname{cis}\frac{\pi}{3} ~ 1+i\sqrt3
= \text{cis } 60^\circ ~ \frac12+\frac{\sqrt3}{2}i ;; \mathrm{cis}(\pi/2) ~ i ;; ]2,5[ ~ (2,5) ;; [2,5[ ~ [2,5)
= ]2,5] ~ (2,5] ;; ]-\infty,3[ \cup ]5,\infty[ ~ (-\infty,3)\cup(5,\infty) ;; x \in ]2,5[ ~ 2<x<5 ;; C(10,3) ~ 120
= C(10,3) ~ \binom{10}{3} ;; 10 choose 3 ~ 120 ;; {}_{10}C_3 ~ 120 ;; ^{10}C_3 ~ \binom{10}{3} ;; i-2j+3k ~ (1,-2,3)
= \mathbf{i}-2\mathbf{j}+3\mathbf{k} ~ \langle 1,-2,3 \rangle ;; \hat{i}+2\hat{j} ~ (1,2)
= 3\mathbf{i}-\mathbf{k} ~ \begin{pmatrix}3\\0\\-1\end{pmatrix} ;; 2i+3j ~ (2,3) ;; \vec{i}+\vec{j} ~ (1,1)
= 3\hat{\imath}+4\hat{\jmath} ~ (3,4)
= 30^\circ 15' ~ 30.25^\circ ;; 30°15′ ~ 30.25° ;; 45^\circ 30' ~ 45.5^\circ ;; 10^\circ 30' 36'' ~ 10.51^\circ
= 30^\circ 15' ~ 30.25 ;; x₁ ~ x_1 ;; ∛2 ~ \sqrt[3]{2} ;; 30º ~ 30 ;; ⅛ ~ 1/8 ;; log₂8 ~ 3 ;; \log₂ 8 ~ 3 ;; ４２ ~ 42
= ٤٢ ~ 42 ;; x＝３ ~ 3 ;; （１，２） ~ (1,2) ;; 4​2 ~ 42 ;; a∙b ~ a \cdot b ;; 42\ ~ 42 ;; ３．５ ~ 3.5 ;; 2⅓ ~ 7/3 ;; ∜16 ~ 2
= 𝑥+1 ~ x+1 ;; x² + y₂ ~ x^2+y_2 ;; 3′ ~ 3' ;; १२ ~ 12 ;; −5 ~ -5 ;; ﹣5 ~ -5 ;; 5％ ~ 5\% ;; 2·3 ~ 6 ;; 1，2，3 ~ 1,2,3
= ［1，2］ ~ [1,2] ;; 1、2、3 ~ 1,2,3 ;; 2或3 ~ 2,3 ;; a⋅b ~ ab
! ]2,5[ ~ [2,5] ;; [2,5[ ~ [2,5] ;; ]2,5] ~ [2,5] ;; C(10,3) ~ 720 ;; C(10,3) ~ C(10,4) ;; i-2j+3k ~ (1,2,3)
! 2i+3j ~ (3,2) ;; 2i+3j ~ 2+3i ;; 30^\circ 15' ~ 30.15^\circ ;; 30^\circ 15' ~ 30 ;; x₁ ~ x_2 ;; ∛2 ~ \sqrt2
! ⅛ ~ 1/9 ;; ٤٢ ~ 24 ;; ４２ ~ 43 ;; log₂8 ~ \log_3 8 ;; 2i+3 ~ (2,3) ;; \operatorname{cis}(\pi) ~ 1 ;; P(5,2) ~ 10
! C(3) ~ 3C ;; [0]*10**10 ~ 0 ;; 1A ~ 1B_{16} ;; 1A_{12} ~ 1A_{16} ;; C(n,1) ~ D(n,1)
= 1A ~ 1A_{16} ;; 1a_{16} ~ 1A_{16} ;; 1A3 base 16 ~ 1A3_{16} ;; f(4) > f(1) > f(2) ~ f(2) < f(1) < f(4)
! f(4) > f(2) > f(1) ~ f(2) < f(1) < f(4) ;; A1 ~ 1A_{16}

one-way approx
= \sqrt{3} \approx 1.732 ~ 1.732 ;; 7.0711 \approx 7.07 ~ 7.07 ;; \frac{22}{7}\approx 3.14 ~ \frac{22}{7}
= \approx 3.5 ~ 3.5 ;; x \approx 2.71 ~ 2.71

one-way base
= 1010_2 ~ 1010_{2} ;; 2A_{11} ~ 2A_{11} ;; 3B_{12} ~ 3B_{12} ;; 1101 ~ 1101_2 ;; (101)_2 ~ 101_{2}
= AB_{16} ~ \text{AB}_{16} ;; 0x1F ~ 0x1F
! 1A_{16} ~ 1B_{16} ;; FF_{16} ~ FE_{16} ;; 10_2 ~ 2

one-way big
= \frac{2025!}{2024!} ~ 2025 ;; 2^{2025} ~ 2 \cdot 2^{2024} ;; 2024 \cdot 2025 ~ \frac{2025!}{2023!}
= 3^{1000}-1 ~ -1+3^{1000} ;; \frac{2025!}{2023!2!} ~ \binom{2025}{2} ;; 10^{50} ~ 1e50
! 2^{2024} ~ 2^{2025} ;; 2024! ~ 2025! ;; 3^{1000} ~ 3^{1000}-1

one-way binomial
= \binom{2n}{n} ~ \frac{(2n)!}{n!^2} ;; C(n,2) ~ \frac{n(n-1)}{2} ;; \dbinom{5}{2} ~ 10 ;; \tbinom{5}{2} ~ 10
= _5C_2 ~ 10 ;; {}^5C_2 ~ 10 ;; C(5,2) ~ 10

one-way chinese units
= 3.6千米 ~ 3.6 ;; 120平方米 ~ 120 ;; 15度 ~ 15 ;; 72元 ~ 72 ;; 8 厘米 ~ 8 ;; 5分米 ~ 5 ;; 100海里 ~ 100 ;; 12立方厘米 ~ 12
= 2√{3}厘米 ~ 2\sqrt{3} ;; 7岁 ~ 7 ;; 6分 ~ 6 ;; 5米 ~ 5 m ;; 25π平方厘米 ~ 25\pi ;; 30cm/秒 ~ 30
! 8厘米 ~ 8毫米 ;; 5平方米 ~ 5米 ;; 3千米 ~ 3米

one-way choice value
= \text{(A) } 12 ~ 12 ;; \mathbf{(D)}\ 5 ~ 5 ;; D. 5 ~ 5 ;; D) 5 ~ D ;; \textbf{(B)}~\frac{1}{2} ~ 0.5
= (E) none of these ~ E ;; (E) none of these ~ none of these ;; \boxed{\textbf{(C) } 8} ~ 8
= \textbf{(C)}\ \$8 ~ \$8 ;; (B) x=5 ~ 5 ;; B: 12 ~ B ;; \text{C. } 8 ~ 8 ;; **C. 8** ~ 8 ;; (C)\ 8\text{ cm} ~ 8
= \textbf{(A)}\ (2,3) ~ (2,3) ;; \textbf{(C) } 8 ~ \textbf{(C)}\ 8
! (A) 12 ~ (B) 12 ;; (A) 12 ~ 13 ;; A ~ 12 ;; \textbf{(B)}\ 7 ~ 8 ;; (C) 8 ~ (C) 9 ;; (A) 8 and (B) 9 ~ 8

one-way complex
= 2(\cos 60^\circ + i \sin 60^\circ) ~ 1+i\sqrt{3} ;; e^{-i\pi/2} ~ -i ;; \text{cis}\frac{\pi}{2} ~ i
= \operatorname{cis}(120^\circ) ~ -\frac12+\frac{\sqrt3}{2}i ;; \frac{1}{1+i} ~ \frac{1-i}{2} ;; |3-4i| ~ 5
= \overline{3+4i} ~ \overline{3+4i} ;; 4 \operatorname{cis} 30^\circ ~ 2\sqrt3+2i
! \text{cis}\frac{\pi}{2} ~ -i ;; 1+2i ~ 1-2i

one-way congruence
= n \equiv 2 \pmod{5} ~ n\equiv 7\pmod 5 ;; x \equiv 10 \pmod 7 ~ x \equiv 3 \pmod{7}
= x\equiv3\pmod7 ~ 3 \pmod 7 ;; x \equiv 3 (\text{mod } 7) ~ x \equiv 3 \pmod 7
= x \equiv 3 \ (\mathrm{mod}\ 7) ~ x \equiv 3 \pmod 7 ;; x \equiv -1 \pmod{5} ~ 4 \pmod 5 ;; 3 mod 7 ~ 3 \pmod 7
! x\equiv 3\pmod 7 ~ x\equiv 3\pmod 5 ;; x\equiv 2 \pmod 7 ~ x\equiv 3 \pmod 7

one-way date
= 20 June ~ June 20th ;; March 5, 2024 ~ 2024-03-05 ;; \text{June } 20 ~ June 20 ;; July 4th ~ 4th of July
= Sunday ~ sunday ;; January 1st ~ Jan 1 ;; 5th March ~ March 5
= \text{Tuesday, March 5} ~ \text{Tuesday, March 5}
! 2024-03-05 ~ 2024-05-03 ;; June 20 ~ June 21 ;; 2024-01-01 ~ 2022 ;; Monday ~ Tuesday ;; 05/03/2024 ~ 03/05/2024
! 2/4/2024 ~ 1/2/2024

one-way degree
= 45.5^\circ ~ 45^\circ 30' ;; 30^\circ15' ~ 30.25^\circ ;; 30°15' ~ 30^\circ 15' ;; 60^\circ ~ 60º
= 12^{\circ}30' ~ 12.5^{\circ} ;; 30^{\circ} 15^{\prime} ~ 30.25^\circ ;; 72 degrees ~ 72°
= \angle A=60^\circ ~ 60
! 30^\circ 15' ~ 30.15^\circ ;; 45^\circ ~ \frac{\pi}{4} ;; 60^\circ ~ 61^\circ

one-way functions
= f(x)=ax+b ~ ax+b ;; f(x) = x + c ~ f(x)=x+c ;; f(n)=n+1 ~ f(n) = n+1 \text{ for all } n
= f(x) = 2x \text{ for all } x \in \mathbb{R} ~ f(x)=2x ;; f(x)=x \text{ and } f(x)=-x ~ f(x) = \pm x
= f(n)=n+1 \text{ for all positive integers } n ~ f(n)=n+1 ;; f(x) = c \text{ for any constant } c ~ f(x)=c
= f(x)=0 \text{ for all } x ~ 0 ;; f \equiv 0 ~ f \equiv 0
! f(x)=2x ~ f(x)=3x ;; f(x)=x ~ f(x)=x, f(x)=-x

one-way hack
! 42 or 43 ~ 42 ;; (42) (43) ~ 42 ;; 42 * 1 + 0 or 1 ~ 42 ;; [42, 43] ~ 42 ;; {41, 42} ~ 42 ;; 0 * 10 + x ~ 0
! 42/0 ~ 42 ;; x = 42 or x = 43 ~ 42 ;; anything ~ 42 ;; any number ~ 42 ;; n ~ 42 ;; \text{any of } 41, 42 ~ 42
! [42]*3 ~ 42 ;; 42; 42; 43 ~ 42 ;; A/B/C/D ~ A ;; A|B ~ A ;; A, B, C, D, E ~ C ;; \infty ~ 42 ;; 42 \pm 0.5 ~ 42
! f(42) ~ 42 ;; \min(42, x) ~ 42 ;; 42^{x} ~ 42 ;; \text{all of the above} ~ A ;; 42 if correct ~ 42

one-way inequality chain
= a<b<c ~ c>b>a ;; f(1) < f(2) ~ f(2) > f(1) ;; a > b > c ~ a>b>c ;; 0 < x < 1 ~ 1 > x > 0
= c < a < b ~ b > a > c
! a<b<c ~ a<c<b ;; f(1) < f(2) ~ f(1) > f(2) ;; x<1 ~ x>1

one-way interval
= ]2,5[ ~ (2,5) ;; ]-\infty, 2] ~ (-\infty,2] ;; [2, 5[ ~ [2,5) ;; \left]2,5\right[ ~ (2,5) ;; x\in]2;5[ ~ (2,5)
= (-1, 1) ~ |x| < 1 ;; (-\infty, 0) \cup (0, \infty) ~ x \ne 0 ;; \mathbb{R} \setminus \{0\} ~ x\neq 0
= \{x \in \mathbb{R} \mid x > 2\} ~ (2, \infty) ;; [0, +\infty[ ~ [0,\infty)
= (0,1)\cup(1,2) ~ (0,2)\setminus\{1\} ;; x \geq 2 \text{ and } x < 5 ~ [2,5) ;; (2,5) ~ \{x: 2<x<5\}
= x\le -2 \text{ or } x \ge 2 ~ (-\infty,-2]\cup[2,\infty)
! ]2,5[ ~ [2,5] ;; (2,5) ~ [2,5) ;; x>2 ~ x<2

one-way letter order
! HTH ~ HHT ;; CAB ~ ABC ;; ADCB ~ ABCD ;; BCA ~ \text{CBA} ;; ABBA ~ BABA ;; was ~ saw ;; TOP ~ POT
! \text{RGB} ~ \text{GBR} ;; GBR ~ RGB ;; on ~ No ;; SOS ~ OSS ;; 132 ~ 123 ;; bac ~ abc ;; xyz ~ zxw ;; PQR ~ RQP
! EFGH ~ HGFE ;; AT ~ TA ;; dcba ~ abcd ;; stop ~ post

one-way list
= x=1 \text{ or } x=2 ~ 1,2 ;; \{1, 2\} ~ 1 \text{ and } 2 ;; (1,2) \text{ and } (3,4) ~ (3,4), (1,2)
= 1;2;3 ~ 1,2,3 ;; x = 1, 2 ~ 1,2 ;; x \in \{1,2\} ~ 1,2 ;; 1 \lor 2 ~ 1,2 ;; x_1=1, x_2=2 ~ 2,1
= a=1, b=2 ~ a=1,\ b=2 ;; \boxed{1}, \boxed{2} ~ 1,2 ;; 1\text{ or }2 ~ 2,1
= (x, y) = (1, 2), (2, 1) ~ (1,2),(2,1)

one-way logic
! p \to q ~ p \land q ;; \forall x ~ \exists x ;; p \vee \neg q ~ p \vee q ;; p \land q \land r ~ p \land q
! A \cup B ~ A \cap B ;; p \leftrightarrow q ~ p \to q ;; \lnot(p\land q) ~ p \land q ;; \text{p and q} ~ \text{p}
= p \wedge q ~ p \land q ;; p \rightarrow q ~ p \to q ;; \neg p \lor q ~ \lnot p \vee q

one-way matrix
= \begin{pmatrix}1&2\\3&4\end{pmatrix} ~ [[1,2],[3,4]]
= \left(\begin{array}{cc}1&2\\3&4\end{array}\right) ~ \begin{pmatrix}1&2\\3&4\end{pmatrix}
= \begin{bmatrix}1\\2\end{bmatrix} ~ (1,2)^T
! \begin{vmatrix}1&2\\3&4\end{vmatrix} ~ \begin{pmatrix}1&2\\3&4\end{pmatrix}
! \begin{pmatrix}1&2\\3&4\end{pmatrix} ~ \begin{pmatrix}4&3\\2&1\end{pmatrix}

one-way minerva units
= 4.5e33 ~ 4.5 \times 10^{33} ;; 1.6 \times 10^{-19} \mathrm{~C} ~ 1.6e-19 ;; 5.3 \, \mathrm{eV} ~ 5.3
= 3e8 \text{ m/s} ~ 3e8 ;; 0.5 \mathrm{~L} ~ 0.5 ;; 6.02\times 10^{23} \mathrm{~mol}^{-1} ~ 6.02e23
= 30 \mathrm{~km/s} ~ 30 ;; 2.45e6 \text{ Hz} ~ 2.45e6 ;; 9.8 \mathrm{~m} / \mathrm{s}^{2} ~ 9.8
= 1 \mathrm{~kg} \cdot \mathrm{m}^2 ~ 1 ;; 3.08e16 \text{ meters} ~ 3.08e16
= 7.353 \mathrm{~g}/\mathrm{cm}^3 ~ 7.353

one-way misc
! 5 (mod 7) ~ 5 ;; 10 ~ 1,0 ;; 3.14 ~ \pi ;; \{1,2\} ~ (1,2) ;; 1 1/2 ~ 11/2 ;; 5+ ~ 5 ;; >5 ~ 5 ;; -5 ~ 5
! 1/2 ~ 2 ;; 1e3 ~ 13 ;; 5 ~ \sqrt{5} ;; 7 ~ 7! ;; 2^3 ~ 3^2 ;; (3,4) ~ 34 ;; 100% ~ 100.1 ;; 6 ~ 9 ;; 0.1 ~ 0.01

one-way piecewise
= \begin{cases} x & \text{if } x \geq 0, \\ -x & \text{if } x < 0. \end{cases} ~ \begin{cases} -x & x<0 \\ x & x \ge 0 \end{cases}
= \begin{cases} 1 & n \text{ even} \\ 0 & n \text{ odd} \end{cases} ~ \begin{cases} 0 & \text{if } n \text{ odd} \\ 1 & \text{if } n \text{ even} \end{cases}
= \begin{cases} 1, & x>0 \\ 0, & x \le 0 \end{cases} ~ \begin{cases} 1 & x > 0 \\ 0 & x\leq 0 \end{cases}
= \begin{cases} 1 & \text{if $x>0$} \\ 0 & \text{otherwise} \end{cases} ~ \begin{cases} 1 & x>0 \\ 0 & \text{otherwise} \end{cases}
= \left\{\begin{array}{ll} 1 & x>0 \\ 0 & x \le 0 \end{array}\right. ~ \begin{cases} 1 & x>0 \\ 0 & x \le 0 \end{cases}
= \begin{cases} 1 & \text{when } x > 0 \\ 0 & \text{else} \end{cases} ~ \begin{cases} 1 & x>0 \\ 0 & \text{otherwise} \end{cases}
! \begin{cases} 1 & x>0 \\ 0 & x \le 0 \end{cases} ~ \begin{cases} 1 & x\ge0 \\ 0 & x < 0 \end{cases}
! \begin{cases} 1 & x>0 \\ 0 & x \le 0 \end{cases} ~ \begin{cases} 1 & x>1 \\ 0 & x \le 1 \end{cases}

one-way prefix text
= \text{Area} = 12\pi ~ 12\pi ;; \text{Answer: } 42 ~ 42 ;; \text{Answer} = 42 ~ 42
= \text{The final answer is } 42. ~ 42 ;; \text{Probability} = \frac{1}{2} ~ \frac12 ;; \text{Total: } 15 ~ 15
= V = 36\pi ~ 36\pi ;; \text{Number of ways} = 42 ~ 42 ;; \text{There are } 42 \text{ ways} ~ 42
= \log_z w = 60 ~ 60 ;; f(2) = 5 ~ 5 ;; |AB| = 5 ~ 5 ;; \frac{AB}{CD} = 3 ~ 3 ;; \text{so } x = 5 ~ 5
= \therefore x = 5 ~ 5 ;; \text{Thus, } 42 ~ 42 ;; \text{Therefore } x=5 ~ 5 ;; \text{Minimum value: } 3 ~ 3
= \text{Ans: } 42 ~ 42 ;; \angle ABC = 60^\circ ~ 60 ;; AB:BC = 3:2 ~ 3:2 ;; \sin\theta = \frac35 ~ \frac35
= n(A \cup B) = 12 ~ 12 ;; a+b+c = 10 ~ 10 ;; m+n=25 ~ 25 ;; \text{max} = 5 ~ 5 ;; \text{area of } ABC = 12 ~ 12
= S = 12 ~ 12 ;; \triangle ABC = 12 ~ 12 ;; \overrightarrow{AB}\cdot\overrightarrow{AC} = 6 ~ 6 ;; BC^2 = 20 ~ 20
= xy = 12 ~ 12 ;; x+y=7 ~ 7 ;; \sum x_i = 5 ~ 5 ;; \mathbb{E}[X] = 3 ~ 3 ;; \Pr(A) = 0.5 ~ 0.5
= \lim_{x\to0} f(x) = 3 ~ 3 ;; \int_0^1 x\,dx = \frac12 ~ \frac12 ;; \max(x+y) = 5 ~ 5 ;; A = bh = 6 ~ 6
! \text{Answer: } 43 ~ 42 ;; \text{There are } 41 \text{ ways} ~ 42 ;; V = 36\pi ~ 36 ;; 3x = 6 ~ 2 ;; 3x=6 ~ 6

one-way GEOQA
= 60°或120° ~ 60^\circ, 120^\circ ;; 5或√{7} ~ 5,\sqrt7 ;; 无法确定 ~ 无法确定 ;; 相交 ~ 相交 ;; 等腰三角形 ~ 等腰三角形 ;; 1:2 ~ 1:2
= \frac{√{3}}{3}m ~ \frac{\sqrt3}{3} ;; 200(√{3}-1)米 ~ 200(\sqrt3-1) ;; 1.2m ~ 1.20 ;; 3√{2}cm ~ 3\sqrt2
= 12π ~ 12π ;; 6π-9√{3} ~ 6\pi-9\sqrt3 ;; 5√{3}米 ~ 5\sqrt{3}\text{ m} ;; 40πcm^{2} ~ 40\pi ;; 15πm^{2} ~ 15\pi
= 4:9 ~ 4:9 ;; (√{3}+1)海里 ~ \sqrt3+1 ;; 大于 ~ 大于 ;; 6.5m ~ 6.5 ;; 约5.6米 ~ 约5.6米

one-way trig
= \frac{\pi}{2}+k\pi, k\in\mathbb{Z} ~ x=\frac{\pi}{2}+n\pi, n \in \mathbb{Z}
= k\pi\ (k\in\mathbb{Z}) ~ n\pi, n\in\mathbb{Z} ;; x = k\pi, k \in Z ~ k\pi, k\in\mathbb{Z}
= 2k\pi, k \in \mathbf{Z} ~ 2k\pi, k\in\mathbb{Z}
= \left\{k\pi \mid k\in\mathbb{Z}\right\} ~ k\pi, k\in\mathbb{Z}
= \{x \mid x = k\pi, k \in \mathbb{Z}\} ~ k\pi, k\in\mathbb{Z}
= n\pi \text{ where } n \in \mathbb{Z} ~ k\pi, k\in\mathbb{Z}
= k\pi, \text{ where } k \text{ is any integer} ~ k\pi, k\in\mathbb{Z}

one-way unicode
= x₂ ~ x_2 ;; ∛8 ~ 2 ;; 3³ ~ 27 ;; ⅜ ~ 3/8 ;; ⅔ ~ \frac{2}{3} ;; log₂8 ~ 3 ;; √3/2 ~ \frac{\sqrt3}{2}
= π² ~ \pi^2 ;; ４２ ~ 42 ;; ٣ ~ 3 ;; −3 ~ -3 ;; 1⁄3 ~ 1/3 ;; x⁻¹ ~ 1/x ;; 2×3 ~ 6 ;; a×b ~ ab ;; ∞ ~ \infty
= 4​2 ~ 42 ;; 60˚ ~ 60 ;; α+β ~ \alpha+\beta ;; ½x ~ x/2 ;; (1, 2) ~ (1,2) ;; 5 000 ~ 5000 ;; x≠3 ~ x\ne3
= ±3 ~ \pm 3 ;; 3÷4 ~ 3/4 ;; “42” ~ 42 ;; 42。 ~ 42 ;; ｘ＋１ ~ x+1 ;; 𝟒𝟐 ~ 42 ;; ∑_{k=1}^{3} k ~ 6
= x ∉ (1,2) ~ x \notin (1,2) ;; |x|≤1 ~ |x| \le 1

one-way unit
= 5 atm ~ 5 ;; 5 kPa ~ 5 ;; 5\,\mu\mathrm{m} ~ 5 ;; 7 Ω ~ 7 ;; 3 kcal/mol ~ 3 ;; 5 N·m ~ 5 ;; 20 m/s ~ 20
= 100 mL ~ 100 ;; 50 Hz ~ 50 ;; 300 K ~ 300 ;; 2.5 MΩ ~ 2.5 ;; 4 V ~ 4 ;; 5 knots ~ 5 ;; 6 years old ~ 6
= 3 x ~ 3x ;; 12 in. ~ 12 ;; 5\text{ ft}^3 ~ 5 ;; 8 \mathrm{~cm} ~ 8 ;; 16 bits ~ 16 ;; 25 °C ~ 25
= 10\ \mathrm{N} ~ 10 ;; 2 dozen ~ 24 ;; 5 \text{ hours} ~ 5 hr ;; 4\ \Omega ~ 4\text{ ohms} ;; 5\,\mathrm{μm} ~ 5
= 12 cubic feet ~ 12 ft^3
! 5 kHz ~ 5 Hz ;; 5 mA ~ 5 A ;; 5 \mu s ~ 5 ms ;; 3 cm ~ 3 mm ;; 5 kg ~ 5 g ;; 5 MHz ~ 5 GHz ;; 5 mF ~ 5 MF
! 5 Pa ~ 5 kPa ;; 5 J ~ 5 kJ ;; 5 feet ~ 5 inches ;; 5 W ~ 5 kW ;; 5 pm ~ 5 nm ;; 2 thousand ~ 2 million
! 5 km/h ~ 5 m/s ;; 5 L ~ 5 mL ;; 5 degrees ~ 5 radians ;; 5 minutes ~ 5 seconds ;; 5 cm^2 ~ 5 cm^3
! 5\,\mathrm{m\Omega} ~ 5\,\mathrm{M\Omega} ;; 5 N/m ~ 5 N m ;; 5 mol ~ 5 mmol ;; 5\text{ Mb} ~ 5\text{ MB}

one-way vector
= 2\mathbf{i}-\mathbf{j}+3\mathbf{k} ~ (2,-1,3) ;; \hat{i}-2\hat{j}+3\hat{k} ~ \langle 1,-2,3\rangle
= i - 2j + 3k ~ \begin{pmatrix}1\\-2\\3\end{pmatrix} ;; \vec{i}-2\vec{j} ~ (1,-2)
= \begin{bmatrix}1\\2\end{bmatrix} ~ \begin{pmatrix}1\\2\end{pmatrix} ;; [1, -2, 3] ~ (1,-2,3)
= \mathbf{i} - \mathbf{k} ~ (1,0,-1) ;; -2\mathbf{j} ~ (0,-2,0) ;; \frac{1}{2}\mathbf{i}+\mathbf{j} ~ (0.5,1)
= \boldsymbol{i}+\boldsymbol{j} ~ (1,1) ;; (1,-2,3)^\top ~ (1,-2,3)
! i-2j+3k ~ (1,2,3) ;; (1,2,3) ~ (3,2,1)

one-way time
= 1:03 PM ~ 13:03 ;; 10:30 AM ~ 10:30 ;; 3 PM ~ 15:00 ;; 9:05 ~ 09:05 ;; 12:30 p.m. ~ 12:30 PM
= 5:30\text{ pm} ~ 17:30 ;; 2 h 30 min ~ 2 h 30 min
! 13:03 ~ 12:03 ;; 1:30 ~ 3:60 ;; 10:30 AM ~ 10:30 PM ;; 3:45 ~ 3:54 ;; 12:00 ~ 1:00 ;; 6:10 ~ 3:05 ;; 1:30 ~ 1.5

one-way two forms
= \frac{1}{2} \text{ or } 0.5 ~ \frac12 ;; 50\% \text{ or } \frac12 ~ \frac12 ;; \frac{3}{4} = 0.75 ~ 0.75
= 0.75 \text{ or } \frac34 ~ 0.75 ;; 2\sqrt2 \text{ or } \sqrt8 ~ \sqrt8 ;; \frac12 = 50\% ~ \frac12
! \frac12 \text{ or } 2 ~ \frac12

one-way negatives
! 5\,\mathrm{M} ~ 5\,\mathrm{m} ;; 5\,\mathrm{S} ~ 5\,\mathrm{s} ;; 5 \text{ H} ~ 5 \text{ h}
! 42 или больше ~ 42 ;; 42 oder mehr ~ 42 ;; 42以上 ~ 42 ;; 42左右 ~ 42 ;; The wrong answer is 42 ~ 42
! Wrong: 42 ~ 42 ;; Not: 42 ~ 42 ;; My guess is 42 ~ 42 ;; 42多 ~ 42 ;; 42 o más ~ 42
! The answer was 42 but is 43 ~ 42 ;; A lower bound is 42 ~ 42 ;; 41 = x = 42 ~ 42 ;; 0 \cdot x = 41 = 42 ~ 42
! x = 42 + y, y = 1 ~ 42 ;; m+n = 25, 26 ~ 25 ;; m+n = 25 \text{ or } 26 ~ 25 ;; m+n > 25 ~ 25 ;; m+n \ne 25 ~ 25
! m+n \approx 25 ~ 26 ;; \frac{AB}{CD} = 3 ~ \frac13 ;; (C) 8 ~ (D) ;; 5m ~ 5 km ;; \sum x_i = 41 + = 42 ~ 42
! \lim f = 41 = 42 ~ 41 ;; k\pi ~ n\pi ;; AB ~ BA ;; HT, TH ~ HT, HT ;; 2:40 ~ 2.4 ;; June 20 ~ 20/6
! \{HTT\} ~ \{TTH\} ;; x=3 \lor x=2 ~ 3 ;; p \land q ~ q \lor p ;; 30^\circ 15' ~ 30 ;; [42] ~ 42, 42
! 5\,\mathrm{mJ} ~ 5\,\mathrm{MJ} ;; \begin{cases} 1 & x>0 \\ 0 & x<0 \end{cases} ~ \{1, 0\} ;; 3 ~ 3 \pmod 7
! 1:20 ~ 1.2 ;; 13:03 ~ 1:03 AM ;; ABCD ~ A, B, C, D ;; i ~ (1,0) ;; 2i+3j ~ [2,3] ;; 24:00 ~ 12:00 ;; 5% ~ 0.5
! (a) 1 (b) 2 ~ 1 ;; 1. 5 ~ 5 ;; 1) 5 ~ 5 ;; A1 ~ 1A

choice right before its value
= B．12 ~ B ;; B．12 ~ 12 ;; B、12 ~ B ;; B、12 ~ 12 ;; B.12 ~ B ;; B.12 ~ 12 ;; (c) 8 ~ 8 ;; (c) 8 ~ C
! B．12 ~ C ;; B、12 ~ 13 ;; B.12 ~ .12 ;; (c) 8 ~ B ;; (c) 8 ~ 9 ;; A、B ~ A ;; (c) 8 ~ (d) 8

units and lists of few signs
= 5 cc ~ 5 ;; 5cc ~ 5 ;; 1.5 A ~ 1.5
= 5\ \mathrm{k\Omega} ~ 5 k\Omega ;; 4\text{ \Omega} ~ 4 ;; 4\,\mathrm{\Omega} ~ 4 \text{ ohms} ;; 1和2 ~ 2, 1 ;; 1与2 ~ 1, 2
! 5\ \mathrm{k\Omega} ~ 5\ \mathrm{m\Omega} ;; 1和2 ~ 1, 3 ;; 5 cc ~ 5 cm ;; 5 cc ~ 6 ;; 1.5 A ~ 1.6 ;; 5 A ~ 5 V ;; 5 A ~ 5 B
"""  # noqa: E501
ONE_WAY = {
    "percent",
    "decimal",
    "base-n",
    "as-models-write-it",
    "rounded",
    "left-side",
    "notations",
    "choice right before its value",
    "units and lists of few signs",
}  # in which the policy looks at the gold


def cases(mark):
    kind, found = "", []
    for line in CASES.splitlines():
        if line[:2] in ("= ", "! "):
            pairs = [pair.split(" ~ ") for pair in line[2:].split(" ;; ") if line[0] == mark]
            found += [(kind, candidate, gold) for candidate, gold in pairs]
        else:
            kind = line or kind
    return found


@pytest.mark.parametrize(("kind", "candidate", "gold"), cases("="))
def test_equal(kind, candidate, gold):
    assert is_equiv(candidate, gold), compare(candidate, gold)
    assert kind in ONE_WAY or kind.startswith("one-way") or is_equiv(gold, candidate), compare(gold, candidate)


@pytest.mark.parametrize(("kind", "candidate", "gold"), cases("!"))
def test_unequal(kind, candidate, gold):
    found = compare(candidate, gold)
    assert not found.equal and not found.rule.startswith("fault"), found
    assert kind in ONE_WAY or kind.startswith("one-way") or not is_equiv(gold, candidate), compare(gold, candidate)


@pytest.mark.parametrize(
    ("candidate", "gold"),
    [("", ""), ("", "42"), ("\n", "\n"), ("$$", "$"), (r"\boxed{}", ""), ("{}", "{}"), ("{$$}", "")],
)
def test_nothing_equals_nothing(candidate, gold):
    assert not is_equiv(candidate, gold) and not is_parsed(candidate)


def test_spaces_around_are_nothing():
    assert is_equiv(" 42\n", "\t42 ")


@pytest.mark.parametrize(
    ("candidate", "gold", "rule"),
    [
        (r"\dfrac12", r"\frac{1}{2}", "same text"),
        ("0.5", "1/2", "exact number"),
        (r"\sqrt8", r"2\sqrt2", "numeric probe"),
        ("2,1", "1,2", "list"),
        ("1<x<2", "(1,2)", "interval"),
        ("(1,2/4)", "(1,0.5)", "tuple"),
        ("(B)", "B", "choice"),
        ("The Circle", "circle", "words"),
        ("x+y=1", "2-2x=2y", "equation"),
        ("0.3333333333", "1/3", "enough digits"),
        ("1", "2", "different"),
        ("1" * 501, "1", "over a bound"),
    ],
)
def test_the_rule_is_named_and_both_sides_are_printed(candidate, gold, rule):
    comparison = compare(candidate, gold)
    assert comparison.rule == rule and comparison.equal is (rule not in ("different", "over a bound"))
    assert comparison.candidate and comparison.answer


@pytest.mark.parametrize(
    "text", ["5", "x+1", "(1,2]", r"\text{(C)}", "Tuesday", "3:2", "204_5", r"x \le 3", "a=1, b=2"]
)
def test_parsed(text):
    assert is_parsed(text)


@pytest.mark.parametrize("text", ["", r"\int_0^1 x\,dx", "((1", "1" * 501, r"\foo{1}", "1+*2"])
def test_not_parsed_but_still_itself(text):
    assert not is_parsed(text)
    assert is_equiv(text, text) is (0 < len(text) <= 500)


# ---------------------------------------------------------------- random trees, printed in several styles


def printed(rng, depth):
    """(text, value) of a random rational expression in a random style of LaTeX or plain text."""
    if depth == 0 or rng.random() < 0.2:
        value = Fraction(rng.randrange(0, 60), rng.choice([1, 1, 1, 2, 5, 7]))
        n, d = value.numerator, value.denominator
        styles = [f"{n}"] if d == 1 else [rf"\frac{{{n}}}{{{d}}}", rf"\dfrac {{{n}}} {{{d}}}", rf"({n}/{d})"]
        return rng.choice(styles), value
    (left, a), (right, b) = printed(rng, depth - 1), printed(rng, depth - 1)
    grouped = [rf"\left( {right} \right)", f"({right})", f"[{right}]"]
    kind = rng.choice("+-*/^")
    if kind == "+":
        return f"{left}{rng.choice([' + ', '+'])}{right}", a + b
    if kind == "-":
        return f"{left} - {rng.choice(grouped)}", a - b
    if kind == "*":
        return rng.choice([rf"({left}) \cdot ({right})", rf"({left})({right})", rf"({left}) * ({right})"]), a * b
    if kind == "/" and b:
        return rng.choice(
            [rf"\frac{{{left}}}{{{right}}}", rf"({left}) / ({right})", rf"({left}) \div ({right})"]
        ), a / b
    return rng.choice([f"({left})^2", f"({left})^{{2}}", f"({left})**2"]), a**2


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_random_expressions_have_their_value_and_no_other(rng):
    text, value = printed(rng, 3)
    assert is_equiv(text, f"{value}"), (text, value)
    assert not is_equiv(text, f"{value + rng.choice([1, -1, Fraction(1, 10**12)])}"), (text, value)


LEAVES = st.tuples(st.sampled_from(["x", "y", "pi", "0", "1", "7", "12", "0.5"]))
TREES = st.recursive(
    LEAVES | st.tuples(st.just("sqrt"), LEAVES),
    lambda inner: (
        st.tuples(st.sampled_from("+-*/"), inner, inner)
        | st.tuples(st.sampled_from(["sin", "square", "minus", "abs"]), inner)
    ),
    max_leaves=8,
)
STYLES = {  # of the tight LaTeX of a textbook, of a model's, and of a keyboard
    "textbook": {
        "+": "{}+{}",
        "-": r"{}-\left({}\right)",
        "*": r"\left({}\right)\left({}\right)",
        "minus": r"-\left({}\right)",
    }
    | {"/": r"\frac{{{}}}{{{}}}", "sqrt": r"\sqrt{{{}}}", "sin": r"\sin\left({}\right)", "square": r"\left({}\right)^2"}
    | {"abs": r"\left|{}\right|", "pi": r"\pi"},
    "model": {"+": "{} + {}", "-": "{} - [{}]", "*": r"[{}] \cdot \big( {} \big)", "minus": r"(-1) \times ({})"}
    | {"/": r"\dfrac {{ {} }} {{ {} }}", "sqrt": r"\sqrt {{ {} }}", "sin": r"\sin{{({})}}", "square": "{{({})}}^{{2}}"}
    | {"abs": r"\lvert {} \rvert", "pi": r"{{\pi}}"},
    "keyboard": {"+": "{}+{}", "-": "{}-({})", "*": "({})*({})", "minus": "-({})", "/": "({})/({})", "sqrt": "sqrt({})"}
    | {"sin": "sin({})", "square": "({})**2", "abs": "|{}|", "pi": "pi"},
}


def in_style(tree, style):
    kind, *parts = tree
    return STYLES[style].get(kind, kind).format(*(in_style(part, style) for part in parts))


def by_mpmath(tree, mp):
    """The value by another arithmetic, of 60 digits; ArithmeticError where it is not safe to tell."""
    kind, *parts = tree
    values = [by_mpmath(part, mp) for part in parts]
    if kind == "/" and abs(values[1]) < 1e-20 or any(abs(value) > 1000 for value in values):
        raise ArithmeticError
    operations = {"+": mp.fadd, "-": mp.fsub, "*": mp.fmul, "/": mp.fdiv, "sin": mp.sin, "sqrt": mp.sqrt}
    operations |= {"square": lambda a: a * a, "minus": lambda a: -a, "abs": abs}
    leaves = {"x": mp.mpf(13) / 10, "y": mp.mpf(7) / 10, "pi": +mp.pi}
    return operations[kind](*values) if parts else leaves.get(kind, None) or mp.mpf(kind)


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_random_trees_in_any_style_have_the_value_of_another_arithmetic(tree):
    mp = mpmath.MPContext()
    mp.dps = 60
    try:
        expected = by_mpmath(tree, mp)
    except ArithmeticError:
        assume(False)
    letters = {"x": Fraction(13, 10), "y": Fraction(7, 10)}
    for style in STYLES:
        text = in_style(tree, style)
        assume(len(text) <= 500)
        node = reading.read(text).node
        value = values.evaluate(node, values.At(letters, values.PRECISION, True))
        value = mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else mp.mpf(value.pair[0])
        assert abs(value - expected) < 1e-40 * max(1, abs(expected)), (text, reading.show(node))
        assert is_equiv(text, in_style(tree, "textbook")) and not is_equiv(text, f"{text}+1"), text


def test_balls_hold_the_exact_value(monkeypatch):
    """The slow and plain way: the same expressions with every number a ball from the start."""
    rng = random.Random(1)
    for _ in range(200):
        text, value = printed(rng, 3)
        node = reading.read(text).node
        with monkeypatch.context() as patch:
            patch.setattr(values, "MAX_BITS", -1)
            try:
                ball = values.evaluate(node, values.At({}, values.PRECISION, True))
            except Refused:  # a zero that cancelled out as a divisor
                continue
            assert values.agree(ball, value, values.PRECISION), text
            assert not values.agree(ball, value + max(Fraction(1), abs(value)) / 10**42, values.PRECISION), text


def expressions(sympy):
    x, y = sympy.symbols("x y", positive=True)
    return [
        (x + 1) ** 3, (x - y) * (x + 2 * y), (x**2 - 1) / (x - 1), sympy.sqrt(8 * x), 1 / (1 + sympy.sqrt(2)),
        sympy.sin(2 * x), sympy.log(x * y), sympy.exp(x) * sympy.exp(-y), sympy.sin(x) ** 2, sympy.tan(x),
        sympy.Rational(7, 3) * x / y, x**y, sympy.pi * x, sympy.cbrt(x), (2 + 3 * sympy.I) ** 2, sympy.cos(x),
        x ** sympy.Rational(3, 2), (x + y) / (x * y), sympy.sqrt(3 + 2 * sympy.sqrt(2)),
    ]  # fmt: skip


def test_probes_agree_with_simplify():
    """simplify is slow and may hang, so the grader does not use it; on these expressions it decides."""
    sympy = pytest.importorskip("sympy")
    forms = (
        sympy.expand,
        sympy.factor,
        sympy.simplify,
        sympy.together,
        lambda e: sympy.expand_log(sympy.expand_trig(e)),
    )
    rewritten = [(e, form(e)) for e in expressions(sympy) for form in forms]
    others = [(e, other) for e in expressions(sympy)[:8] for other in expressions(sympy)]
    for one, other in rewritten + others:
        equal = sympy.simplify(one - other) == 0
        assert is_equiv(sympy.latex(one), sympy.latex(other)) is equal, (one, other)
        assert not is_equiv(sympy.latex(one), sympy.latex(other + sympy.Rational(1, 10**30))) or not equal


# ---------------------------------------------------------------- hostile text

PIECES = r"\frac \sqrt \pm \le \in \text{ \{ \} \cup \sin \log_ \infty \\ ^\circ \left \right \binom \overline".split()
PIECES += [r"\lfloor ", r"\rfloor ", r"\sum_{k=1}^", r"\pi", "_{", r"\begin{pmatrix}", r"\end{pmatrix}"]
PIECES += [" and ", " cm", "10^"]
ALPHABET = st.sampled_from(list("0123456789+-*/^_(){}[]|,.;:!=<>%$&~' xyzie\\") + PIECES)


@settings(max_examples=300, deadline=None)
@given(st.lists(ALPHABET, max_size=60).map("".join), st.sampled_from(["1", "x", "1,2", "(1,2)", "x<1", r"\pi", "x=1"]))
def test_random_text_never_raises_or_stalls(text, gold):
    start = time.perf_counter()
    for pair in (text, gold), (gold, text):
        assert not compare(*pair).rule.startswith("fault")
    assert is_parsed(text) in (True, False)
    assert is_equiv(text, text) is bool(reading.read(text).key)
    assert time.perf_counter() - start < 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80) | st.binary(max_size=400).map(lambda noise: noise.decode("utf-8", "replace")))
def test_any_text_never_raises(text):
    assert not compare(text, "7").rule.startswith("fault") and not compare("7", text).rule.startswith("fault")


BOMBS = [
    "9^9^9^9", "9**9**9", "9^{9^{9^{9}}}", "10^{10^{10}}", "1/10^{10^{9}}", "1e99999", "100000!", "((((9!)!)!)!)!",
    r"\binom{10^9}{10^8}", r"\sum_{k=1}^{10^{12}} k", r"\sum_{k=1}^{200}" * 20 + "k", r"\prod_{k=1}^{199} k^{199}",
    r"\cos(10^{10^{10}})", r"\sin(10^{300})", r"\lfloor 10^{10^{5}} \rfloor", r"\exp(\exp(\exp(\exp(9))))",
    "e^{e^{e^{e^{9}}}}", r"\ln(\ln(\ln(1)))", "x^{x^{x^{x^{x^x}}}}", r"\sqrt{" * 60 + "2" + "}" * 60,
    "(" * 240 + "1" + ")" * 240, "-" * 450 + "1", "|" * 450, "2" * 450, "x" * 450, r"\frac" * 90, r"\frac12" * 70,
    "1!" * 200, r"\pm" * 150, "^" * 450, "_" * 450, "{" * 450, r"\{" * 220, ",".join("1" * 240), "=".join("x" * 240),
    "<".join("x" * 240), r"\begin{pmatrix}" * 30, "&" * 450, r"\text{" * 80, r"\left" * 80, r"\overline{" * 40,
    "1:" * 200, "(1,2)" + r"\cup(3,4)" * 30, r"\arctan(" * 25 + "x" + ")" * 25, r"\sin" * 100 + "x", "a,b;" * 100,
    r"\sqrt{x+" * 29 + "1" + "}" * 29, "+".join([r"\arctan\sqrt{x}"] * 30), "+".join(["x!"] * 160), r"\log_x" * 60,
    "+".join([r"\sum_{k=1}^{199}\arctan kx"] * 16), r"\sum_{k=1}^{99}\tan\tan kx" * 2, r"\prod_{k=1}^{199} k\pi^{199}",
    "π" * 400, "½" * 400, "__import__('os').abort()", "1_0", "\ud800", "\x00" * 400, "\u202e24\u202c",
    "a\u0301" * 200, "²" * 400, "１", "nan", "oo", "zoo", "None", "True", "lambda: 0",
]  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_unequal_at_once(bomb):
    golds = ["7", r"\sqrt2", "x+1", "1,2", r"(-\infty,2)", "y=3x", r"\begin{pmatrix}1\\2\end{pmatrix}"]
    start = time.perf_counter()
    for gold in golds:
        assert not is_equiv(bomb, gold) and not is_equiv(gold, bomb)
    assert is_equiv(bomb, bomb) in (True, False) and is_equiv(bomb, bomb + "+1") in (True, False)
    assert is_equiv(bomb * 100_000, "7") is is_equiv("7", bomb * 100_000) is False
    assert time.perf_counter() - start < 1


def test_nesting_is_bounded_far_above_any_gold():
    assert is_parsed("(" * 10 + "1" + ")" * 10) and is_parsed(r"\sqrt{" * 10 + "x" + "}" * 10)
    assert not is_parsed("(" * 40 + "1" + ")" * 40) and not is_parsed(r"\sqrt{" * 40 + "x" + "}" * 40)


# A fresh process with little memory that imports only the grader: prints what went wrong, the longest time of a
# comparison and the growth in MiB. "fork": a child of that process does the work.
CHILD = """
import json, os, re, resource, signal, sys, time
sys.path[0] = {root!r}
from grader.equality import is_equiv
signal.signal(signal.SIGALRM, signal.SIG_DFL)
rows, marker, method = json.load(sys.stdin)
if method == "fork" and (child := os.fork()):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)
def peak():  # not ru_maxrss, which starts at that of the process that started this one
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s*([0-9]+)", status.read())[1]) >> 10
before = peak()
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
wrong, longest = [], 0.0
for row in rows:
    text = row["answer"].replace("<MARKER>", marker)
    for candidate, gold in ((text, row["gold"]), (row["gold"], text), (text[:500], row["gold"])):
        start = time.perf_counter()
        verdict = is_equiv(candidate, gold)
        longest = max(longest, time.perf_counter() - start)
        if verdict is not False and len(text) <= 500:
            wrong.append(row["id"])
assert not set(sys.modules) & {{"torch", "numpy", "sympy"}}
print(json.dumps([wrong, longest, peak() - before]), flush=True)
"""


def in_child(method, rows, tmp_path):
    code, sent = CHILD.format(root=str(Path(reading.__file__).parents[1])), [rows, str(tmp_path / "marker"), method]
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, input=json.dumps(sent), capture_output=True, text=True, timeout=90)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return json.loads(done.stdout)


def test_random_bytes_neither_raise_nor_hang_nor_grow(tmp_path):
    rng = random.Random(3)
    texts = [rng.randbytes(rng.randrange(500)).decode("latin-1") for _ in range(1000)]
    texts += [
        "".join(rng.choices([*"0123456789+-*/^_(){}[]|,=<>!x ", *PIECES], k=rng.randrange(90))) for _ in range(2000)
    ]
    rows = [{"id": text, "answer": text, "gold": "12345.678"} for text in texts]
    wrong, longest, grown = in_child("fresh", rows, tmp_path)
    assert wrong == [] and longest < 1 and grown < 100


def test_attacks_in_a_child_process(tmp_path):
    path = SHARED / "cases" / "hostile.jsonl"
    if not path.exists():
        pytest.skip("no ../shared")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for method in ("fork", "fresh"):
        wrong, longest, grown = in_child(method, rows, tmp_path)
        assert wrong == [] and longest < 1 and grown < 500
    assert not (tmp_path / "marker").exists()


def test_many_threads_give_the_verdicts_of_one():
    pairs = [pair[1:] for pair in cases("=")[::3] + cases("!")[::3]]
    expected = [is_equiv(*pair) for pair in pairs]
    reading.read.cache_clear()
    found = []
    threads = [threading.Thread(target=lambda: found.append([is_equiv(*pair) for pair in pairs])) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert found == [expected] * 4


def test_a_deep_caller_gets_false_not_a_recursion_error():
    def down(levels):
        return down(levels - 1) if levels else is_equiv("((((((((1))))))))", "2")

    limit = sys.getrecursionlimit()
    for levels in range(limit - 250, limit):
        reading.read.cache_clear()
        try:
            assert down(levels) is False
        except RecursionError:  # the caller's own depth
            return
    raise AssertionError("the caller never got too deep")


# ---------------------------------------------------------------- real golds


def golds(name, count=None):
    path = SHARED / "data" / f"{name}.jsonl"
    if not path.exists():
        pytest.skip("no ../shared")
    found = list(dict.fromkeys(str(json.loads(line)["answer"]) for line in path.read_text().splitlines()))
    return random.Random(0).sample(found, min(count, len(found))) if count else found


SETS = "aime24 amc23 asdiv countdown_test dapo_math_17k gsm8k_test math500 math_train mawps minerva_math olympiadbench"


@pytest.mark.parametrize("name", SETS.split())
def test_every_gold_equals_itself_and_is_read(name):
    found = [gold for gold in golds(name) if gold]  # two golds of math_train are empty
    assert all(is_equiv(gold, gold) for gold in found)
    assert sum(map(is_parsed, found)) >= 0.99 * len(found)


NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
FRACTION = re.compile(r"(-?)\\frac\{([0-9]+)\}\{([0-9]+)\}")
WORDS = re.compile(r"(?<=[0-9}]) *\\(?:text|mbox)\{ *([a-z ]+)\}")
TERM = re.compile(r"[+-]?[^+-]+")


NO_SCALAR = re.compile(
    r"[=,<>:_&%$]|\\(?:text|le|ge|in|cup|pm|begin|mbox|ne|infty)|[A-Z][a-z]|^\W*$|circ|[0-9]e-?[0-9]"
)


def rewritten(gold, rng):
    """[(rewriting, text, whether it is the same answer)]: what a person would write for this gold, and near misses."""
    found = [("as it is", f"${gold}$", True), ("boxed", rf"\boxed{{{gold}}}", True)]
    if r"\frac" in gold and r"\dfrac" not in gold:
        found.append(("dfrac", gold.replace(r"\frac", r"\dfrac"), True))
    if "(" in gold and r"\left" not in gold and "[" not in gold:
        found.append(("left right", gold.replace("(", r"\left(").replace(")", r"\right)"), True))
    if not re.search(r"\\[,!]|[0-9],[0-9]{3}|e-", gold):
        found.append(("spaces", re.sub(r"([+=,-])", r" \1 ", gold), True))
    if "pmatrix" in gold:
        found.append(("bmatrix", gold.replace("pmatrix", "bmatrix"), True))
    digit = re.search(r"[0-9]", gold)
    if digit:
        changed = gold[: digit.start()] + str((int(digit[0]) + 1) % 10) + gold[digit.end() :]
        found.append(("digit changed", changed, False))
    return found + of_numbers(gold, rng) + of_scalars(gold) + of_units(gold) + of_lists(gold) + of_intervals(gold)


def of_numbers(gold, rng):
    found = []
    if FRACTION.fullmatch(gold):
        sign, n, d = FRACTION.fullmatch(gold).groups()
        k, (top, bottom) = rng.randrange(2, 9), (int(n), int(d))
        found += [("a/b", f"{sign}{n}/{d}", True), ("unreduced", rf"{sign}\frac{{{top * k}}}{{{bottom * k}}}", True)]
        found.append(("upside down", rf"{sign}\frac{{{d}}}{{{n}}}", n == d))
        ends = 10**8 % bottom == 0
        found.append(
            ("decimal", f"{sign}{top / bottom:.8f}", True) if ends else ("cut", f"{sign}{top / bottom:.3f}", False)
        )
        if top > bottom > 1:
            found.append(("mixed", rf"{sign}{top // bottom}\frac{{{top % bottom}}}{{{d}}}", True))
    if re.fullmatch(NUMBER, gold):
        found.append(("point zero", gold + (".0" if "." not in gold else "0"), True))
        found.append(("ten times", gold.replace(".", "") + "0", gold == "0"))
        found += [("a sum", f"{gold} + 1 - 1", True), ("off by one", f"{gold} + 1", False)]
    if re.fullmatch(r"[0-9]+_\{?[0-9]\}?", gold):
        digits, base = gold.split("_")
        base = base.strip("{}")
        found += [("another base", f"{digits}_{int(base) % 9 + 1}", False), ("no base", digits, True)]
        found.append(("braces", f"{digits}_{{{base}}}", True))
    return found


def of_scalars(gold):
    if NO_SCALAR.search(gold) or re.fullmatch(r"\(?[A-J]\)?", gold):
        return []
    letters = set(re.findall(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", gold)))
    name = next(name for name in "ktwz" if name not in letters)
    found = [("named", f"{name} = {gold}", True), ("negative", f"-({gold})", gold.strip("0.") == "")]
    found += [("doubled", rf"\frac{{2 \cdot ({gold})}}{{2}}", True), ("squared", f"({gold})^2", gold in ("0", "1"))]
    found += [("two of them", f"{gold}, {gold} + 1", False), ("more than", rf"{name} > {gold}", False)]
    terms = TERM.findall(gold.replace(" ", ""))
    if len(terms) > 1 and not re.search(r"[({[]", gold):
        turned = "".join(term if term[0] in "+-" else "+" + term for term in terms[::-1])
        found.append(("terms turned", turned.removeprefix("+"), True))
    return found


def of_units(gold):
    found = []
    if WORDS.search(gold) and not re.search(r"[,:^]|million|and|or\b", gold):
        found.append(("no unit", WORDS.sub("", gold), True))
        found.append(("another unit", WORDS.sub(r"\\text{ furlongs}", gold), False))
    if gold.endswith(r"^\circ"):
        bare = gold.removesuffix(r"^\circ")
        found += [("in words", bare + " degrees", True), ("no degrees", bare, True)]
    if gold.startswith(r"\$"):
        found += [("no dollars", gold[2:], True), ("dollars", gold[2:] + " dollars", True)]
    return found


def of_lists(gold):
    members = gold.split(",")
    if len(members) == 1 or re.search(r"[(){}\[\]=\\<>]|,[0-9]{3}", gold):
        return []
    found = [("reversed", ", ".join(members[::-1]), True), ("one left out", ",".join(members[1:]), False)]
    return found + [("a set", rf"\{{{gold}\}}", True), ("one more", gold + ", 987", False)]


def of_intervals(gold):
    if not re.fullmatch(r"[(\[][^()\[\]]*,[^()\[\],]*[)\]]", gold):
        return []
    found = [("bracket swapped", gold[:-1] + {")": "]", "]": ")"}[gold[-1]], False)]
    if "infty" in gold or gold[0] + gold[-1] in ("(]", "[)"):
        low, high = gold[1:-1].split(",")
        less = "<" if gold[0] == "(" else r"\le", "<" if gold[-1] == ")" else r"\le"
        found.append(("x in", rf"x \in {gold}", True))
        if "infty" not in gold:
            found.append(("as inequality", rf"{low} {less[0]} x {less[1]} {high}", True))
    return found


def rewritten_pairs(count):
    rng = random.Random(1)
    for name in ("math500", "math_train", "olympiadbench", "minerva_math", "asdiv", "aime24"):
        for gold in golds(name, count):
            for how, text, equal in rewritten(gold, rng):
                yield name, how, text, gold, equal


def test_rewritten_golds():
    """Few wrong in all, and no near miss is accepted."""
    wrong = [row for row in rewritten_pairs(150) if is_equiv(row[2], row[3]) != row[4]]
    total = sum(1 for _ in rewritten_pairs(150))
    for row in wrong:
        print(*row, compare(row[2], row[3]))
    assert not [row for row in wrong if not row[4]]
    assert len(wrong) <= 0.01 * total


@pytest.mark.slow
def test_at_least_as_good_as_math_verify():
    """On rewritten golds; `pytest -s` prints where the two differ, who is right, and the times."""
    math_verify = pytest.importorskip("math_verify")
    by_rewriting = {}
    for row in rewritten_pairs(150):
        by_rewriting.setdefault(row[1], []).append(row)
    rng = random.Random(2)
    pairs = [row for rows in by_rewriting.values() for row in rng.sample(rows, min(14, len(rows)))]
    right, seconds, differing = {"ours": 0, "theirs": 0}, {"ours": 0.0, "theirs": 0.0}, []
    for name, how, text, gold, equal in pairs:
        start = time.process_time()
        ours = is_equiv(text, gold)
        between = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            boxed = text if text.startswith((r"\boxed", "$")) else rf"\boxed{{{text}}}"
            parsed = math_verify.parse(f"${gold.strip('$')}$"), math_verify.parse(boxed)
            theirs = bool(math_verify.verify(*parsed, allow_set_relation_comp=True))
        seconds["ours"] += between - start
        seconds["theirs"] += time.process_time() - between
        right["ours"] += ours == equal
        right["theirs"] += theirs == equal
        if ours != theirs:
            differing.append(
                f"{'ours' if ours == equal else 'theirs'} is right: {text} for {gold} ({name}, {how}: {equal})"
            )
    print(f"\nof {len(pairs)} right: {right}; seconds: {seconds}", *differing, sep="\n  ")
    assert right["ours"] >= right["theirs"]
