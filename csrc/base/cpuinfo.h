/* cpuinfo.h - what the processor and the operating system support, asked without running any of it. */
#ifndef PM_BASE_CPUINFO_H
#define PM_BASE_CPUINFO_H

int pm_cpu_has_avx2(void);          /* AVX2, FMA, F16C, and the OS saves their registers */
int pm_cpu_has_avxvnni(void);       /* the above and VNNI without AVX-512 */
int pm_cpu_has_avx512(void);        /* AVX2 and AVX-512 F, BW, DQ, VL */
int pm_cpu_has_avx512vnni(void);    /* the above and its VNNI */
int pm_cpu_has_avx512vnni256(void); /* the same, on 256 bits */
int pm_cpu_has_neon(void);          /* Arm: dot products of bytes */
int pm_cpu_has_i8mm(void);          /* the above and products of byte matrices */

#endif
