/* cpuinfo.h - what the processor and the operating system support, asked without running any of it. */
#ifndef PM_BASE_CPUINFO_H
#define PM_BASE_CPUINFO_H

int pm_cpu_has_avx2(void);   /* AVX2, FMA, F16C, and the OS saves their registers */
int pm_cpu_has_avx512(void); /* the above and AVX-512 F, BW, DQ, VL */
int pm_cpu_has_avx512vnni(void);

#endif
