#pragma once
#include <erl_nif.h>

/* Every enif_* becomes a weak reference, NULL where the host is not a BEAM, so that one library
   loads in python3 too. The list of functions is an X-macro: including it a second time with another
   expansion redeclares each of them. __GNUC__ is hidden meanwhile, or the list's inline helpers
   would be defined twice. */
#pragma push_macro("__GNUC__")
#undef __GNUC__
#define ERL_NIF_API_FUNC_DECL(RET, NAME, ARGS) extern RET NAME ARGS __attribute__((weak))
#include <erl_nif_api_funcs.h>
#undef ERL_NIF_API_FUNC_DECL
#pragma pop_macro("__GNUC__")

/* Swift cannot take the address of a weak import portably; C can. */
static inline int cerlnif_host_is_beam(void) { return enif_make_atom != 0; }

/* enif_snprintf is variadic, which Swift does not import. Writes the term as io:format's ~p would;
   the return value is that of snprintf. */
static inline int cerlnif_format_term(char *buffer, size_t size, ERL_NIF_TERM term) {
    return enif_snprintf(buffer, size, "%T", term);
}
