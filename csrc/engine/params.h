/* params.h - validation of pymtp_params. */
#ifndef PM_ENGINE_PARAMS_H
#define PM_ENGINE_PARAMS_H

#include "base/status.h"

/* PYMTP_E_ARG naming the field; ids must lie below vocab. */
pymtp_status pm_params_check(const pymtp_params *p, int32_t vocab, pymtp_error *err);

#endif
