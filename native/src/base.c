#include "base.h"

_Thread_local bool hak_holds_all;
