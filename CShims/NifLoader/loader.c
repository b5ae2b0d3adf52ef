/* The NIF library of the Erlang module causeway_loader, and the only C in the project that runs.
   It makes libpython's symbols global before the core is loaded: the core leaves Py* undefined, and
   so does every extension module (numpy ...) that Python will import later. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <erl_nif.h>
#include <string.h>

#include "loader.h"

static ERL_NIF_TERM text(ErlNifEnv *env, const char *message) {
    ERL_NIF_TERM term;
    size_t length = strlen(message);
    unsigned char *bytes = enif_make_new_binary(env, length, &term);
    memcpy(bytes, message, length);
    return term;
}

/* open_global(Path :: binary()) -> ok | {error, Text :: binary()}
   Runs on a dirty scheduler: it reads files. The handle is never closed. */
static ERL_NIF_TERM open_global(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ErlNifBinary path;
    char name[4096];
    (void)argc;
    if (!enif_inspect_binary(env, argv[0], &path) || path.size >= sizeof name || memchr(path.data, 0, path.size))
        return enif_make_badarg(env);
    memcpy(name, path.data, path.size);
    name[path.size] = 0;
    if (!dlopen(name, RTLD_NOW | RTLD_GLOBAL))
        return enif_make_tuple2(env, enif_make_atom(env, "error"), text(env, dlerror()));
    return enif_make_atom(env, "ok");
}

static ErlNifFunc functions[] = { { "open_global", 1, open_global, ERL_NIF_DIRTY_JOB_IO_BOUND } };

/* A new version of the Erlang module may load the same library again: there is no state to carry. */
static int upgrade(ErlNifEnv *env, void **data, void **old, ERL_NIF_TERM info) {
    (void)env; (void)data; (void)old; (void)info;
    return 0;
}

ERL_NIF_INIT(causeway_loader, functions, NULL, NULL, upgrade, NULL)
