#pragma once
/* Only so that SwiftPM finds a public header: the loader exports nif_init, which erl_nif.h declares. */
