/* stock.h - the stock files of packaging/, built in: what an installation begins with, whatever has become of its own
 * copies since. NUL-terminated. */
#ifndef ANGARIUM_CMD_STOCK_H
#define ANGARIUM_CMD_STOCK_H

#include "base/str.h"

extern const struct str stock_main_cf, stock_master_cf, stock_postfix_files;
#endif
