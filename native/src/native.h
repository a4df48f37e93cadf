/* Everything of the native module, for the code that cffi generates. */
#ifndef KVMSHIM_NATIVE_H
#define KVMSHIM_NATIVE_H

#include "codec.h"
#include "control.h"
#include "floor.h"
#include "kvm.h"
#include "link.h"
#include "vcpu.h"

#endif
