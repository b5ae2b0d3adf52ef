#pragma once
/* Before Python.h: pyconfig.h defines _GNU_SOURCE, and the fd_set that follows from it differs from
   the one in Swift's Glibc module (a cold debug build fails on it). */
#include <sys/select.h>
#include <stdlib.h>
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <errno.h>
#include <structmember.h>

/* --- macros that Swift cannot import, as functions; _Nonnull where they are never NULL -------- */

static inline PyObject *_Nonnull cpython_none(void) { return Py_None; }
static inline PyObject *_Nonnull cpython_true(void) { return Py_True; }
static inline PyObject *_Nonnull cpython_false(void) { return Py_False; }
static inline PyObject *_Nonnull cpython_not_implemented(void) { return Py_NotImplemented; }
static inline PyTypeObject *cpython_type(PyObject *o) { return Py_TYPE(o); }
static inline Py_ssize_t cpython_refcount(PyObject *o) { return Py_REFCNT(o); }
static inline struct PyModuleDef cpython_module_head(void) {
    struct PyModuleDef definition = { PyModuleDef_HEAD_INIT };
    return definition;
}
/* Which of the types that have a form of their own in Erlang an object is exactly, without a call into
   Python. Subclasses are CPYTHON_OTHER: they are told apart by the slower checks below. */
enum cpython_kind {
    CPYTHON_OTHER, CPYTHON_INT, CPYTHON_STR, CPYTHON_FLOAT, CPYTHON_BYTES, CPYTHON_LIST, CPYTHON_TUPLE,
    CPYTHON_DICT
};
static inline enum cpython_kind cpython_exact_kind(PyObject *o) {
    PyTypeObject *type = Py_TYPE(o);
    return type == &PyLong_Type ? CPYTHON_INT
        : type == &PyUnicode_Type ? CPYTHON_STR
        : type == &PyFloat_Type ? CPYTHON_FLOAT
        : type == &PyBytes_Type ? CPYTHON_BYTES
        : type == &PyList_Type ? CPYTHON_LIST
        : type == &PyTuple_Type ? CPYTHON_TUPLE
        : type == &PyDict_Type ? CPYTHON_DICT : CPYTHON_OTHER;
}
static inline int cpython_is_long(PyObject *o) { return PyLong_Check(o); }
static inline int cpython_is_unicode(PyObject *o) { return PyUnicode_Check(o); }
static inline int cpython_is_bytes(PyObject *o) { return PyBytes_Check(o); }
static inline int cpython_is_list(PyObject *o) { return PyList_Check(o); }
static inline int cpython_is_tuple(PyObject *o) { return PyTuple_Check(o); }
static inline int cpython_is_dict(PyObject *o) { return PyDict_Check(o); }
static inline int cpython_is_subtype_of(PyObject *o, PyTypeObject *t) { return PyObject_TypeCheck(o, t); }
static inline PyTypeObject *cpython_float_type(void) { return &PyFloat_Type; }
static inline PyTypeObject *cpython_slice_type(void) { return &PySlice_Type; }
static inline PyTypeObject *cpython_bytearray_type(void) { return &PyByteArray_Type; }
static inline PyTypeObject *cpython_memoryview_type(void) { return &PyMemoryView_Type; }
static inline PyTypeObject *cpython_bytes_type(void) { return &PyBytes_Type; }
static inline PyTypeObject *cpython_unicode_type(void) { return &PyUnicode_Type; }
static inline PyTypeObject *cpython_set_type(void) { return &PySet_Type; }
static inline PyTypeObject *cpython_frozenset_type(void) { return &PyFrozenSet_Type; }
static inline unsigned long cpython_running_version(void) { return Py_Version; }
enum { cpython_file_input = 257, cpython_eval_input = 258 };

/* Exceptions are mutable globals, which Swift 6 does not let anyone read. */
#define CPYTHON_EXCEPTION(NAME) \
    static inline PyObject *cpython_##NAME(void) { return PyExc_##NAME; }
CPYTHON_EXCEPTION(BaseException)
CPYTHON_EXCEPTION(BufferError)
CPYTHON_EXCEPTION(ConnectionError)
CPYTHON_EXCEPTION(Exception)
CPYTHON_EXCEPTION(IndexError)
CPYTHON_EXCEPTION(KeyError)
CPYTHON_EXCEPTION(KeyboardInterrupt)
CPYTHON_EXCEPTION(OSError)
CPYTHON_EXCEPTION(OverflowError)
CPYTHON_EXCEPTION(TimeoutError)
CPYTHON_EXCEPTION(RecursionError)
CPYTHON_EXCEPTION(RuntimeError)
CPYTHON_EXCEPTION(SystemExit)
CPYTHON_EXCEPTION(TypeError)
CPYTHON_EXCEPTION(UnicodeDecodeError)
CPYTHON_EXCEPTION(ValueError)

/* Sets the subclass of OSError that fits the number. */
static inline void cpython_raise_errno(int number) {
    errno = number;
    PyErr_SetFromErrno(PyExc_OSError);
}

/* Allocates an instance of a heap type; the counterpart of cpython_free_instance. */
static inline PyObject *cpython_alloc_instance(PyTypeObject *type) {
    return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}
/* Frees an instance of a heap type and the reference to its type that every instance owns. */
static inline void cpython_free_instance(PyObject *o) {
    PyTypeObject *type = Py_TYPE(o);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(o);
    Py_DecRef((PyObject *)type);
}

/* --- exported by 3.11 and later, but outside the limited API of 3.11: weak ------------------- */

extern PyObject *PyType_GetModuleByDef(PyTypeObject *, struct PyModuleDef *) __attribute__((weak));
extern PyObject *PyObject_VectorcallMethod(PyObject *, PyObject *const *, size_t, PyObject *) __attribute__((weak));
extern PyObject *PyObject_Vectorcall(PyObject *, PyObject *const *, size_t, PyObject *) __attribute__((weak));
extern PyObject *PyContext_CopyCurrent(void) __attribute__((weak));
extern int PyContext_Enter(PyObject *) __attribute__((weak));
extern int PyContext_Exit(PyObject *) __attribute__((weak));
extern PyObject *PyContextVar_New(const char *, PyObject *) __attribute__((weak));
extern int PyContextVar_Get(PyObject *, PyObject *, PyObject **) __attribute__((weak));
extern PyObject *PyContextVar_Set(PyObject *, PyObject *) __attribute__((weak));
extern PyObject *PyUnicode_New(Py_ssize_t, Py_UCS4) __attribute__((weak));
extern PyFrameObject *PyThreadState_GetFrame(PyThreadState *) __attribute__((weak));
extern void Py_SetProgramName(const wchar_t *) __attribute__((weak));
extern int Py_UTF8Mode __attribute__((weak));
extern int PySys_AddAuditHook(int (*)(const char *, PyObject *, void *), void *) __attribute__((weak));

/* A new str of ASCII characters that are yet to be written where `memory` points; NULL with no error set
   where the running Python cannot do that. The UTF-8 form of such a str is its own memory. */
static inline PyObject *cpython_new_ascii(Py_ssize_t size, char **memory) {
    PyObject *string = PyUnicode_New ? PyUnicode_New(size, 127) : NULL;
    *memory = string ? (char *)PyUnicode_AsUTF8AndSize(string, NULL) : NULL;
    return string;
}

#define CPYTHON_ARGUMENTS_OFFSET ((size_t)1 << (8 * sizeof(size_t) - 1))

/* self.name(argument), through vectorcall where the running Python exports it. */
static inline PyObject *cpython_call_method1(PyObject *self, PyObject *name, PyObject *argument) {
    if (PyObject_VectorcallMethod) {
        PyObject *arguments[3] = { 0, self, argument };
        return PyObject_VectorcallMethod(name, arguments + 1, 2 | CPYTHON_ARGUMENTS_OFFSET, 0);
    }
    return PyObject_CallMethodObjArgs(self, name, argument, (PyObject *)0);
}
static inline PyObject *cpython_call_method2(PyObject *self, PyObject *name, PyObject *first, PyObject *second) {
    return PyObject_CallMethodObjArgs(self, name, first, second, (PyObject *)0);
}
static inline PyObject *cpython_call_method0(PyObject *self, PyObject *name) {
    if (PyObject_VectorcallMethod) {
        PyObject *arguments[2] = { 0, self };
        return PyObject_VectorcallMethod(name, arguments + 1, 1 | CPYTHON_ARGUMENTS_OFFSET, 0);
    }
    return PyObject_CallMethodObjArgs(self, name, (PyObject *)0);
}
/* callable(*arguments): `arguments` points behind one free slot, which vectorcall may overwrite. */
static inline PyObject *cpython_call(PyObject *callable, PyObject *const *arguments, size_t count) {
    if (PyObject_Vectorcall)
        return PyObject_Vectorcall(callable, arguments, count | CPYTHON_ARGUMENTS_OFFSET, 0);
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    if (!tuple) return 0;
    for (size_t i = 0; i < count; i++) {
        Py_IncRef(arguments[i]);
        PyTuple_SetItem(tuple, (Py_ssize_t)i, arguments[i]);
    }
    PyObject *result = PyObject_Call(callable, tuple, 0);
    Py_DecRef(tuple);
    return result;
}
/* callable(*arguments, **keywords), the values of the keywords behind the other arguments. */
static inline PyObject *cpython_call_with_names(PyObject *callable, PyObject *const *arguments, Py_ssize_t count,
                                                PyObject *names) {
    if (PyObject_Vectorcall) return PyObject_Vectorcall(callable, arguments, (size_t)count, names);
    PyErr_SetString(PyExc_RuntimeError, "this Python does not export PyObject_Vectorcall");
    return NULL;
}
static inline PyObject *cpython_call1(PyObject *callable, PyObject *argument) {
    PyObject *arguments[2] = { 0, argument };
    return cpython_call(callable, arguments + 1, 1);
}

/* The current contextvars.Context, copied; NULL with an error set. */
static inline PyObject *cpython_copy_context(void) {
    if (PyContext_CopyCurrent) return PyContext_CopyCurrent();
    PyErr_SetString(PyExc_RuntimeError, "this Python does not export PyContext_CopyCurrent");
    return NULL;
}
static inline int cpython_enter_context(PyObject *context) { return PyContext_Enter ? PyContext_Enter(context) : -1; }
static inline int cpython_exit_context(PyObject *context) { return PyContext_Exit ? PyContext_Exit(context) : -1; }

static inline PyObject *cpython_new_context_variable(const char *name) {
    if (PyContextVar_New) return PyContextVar_New(name, NULL);
    PyErr_SetString(PyExc_RuntimeError, "this Python does not export PyContextVar_New");
    return NULL;
}
/* A new reference to the value in the current context; NULL, without an error, where there is none. */
static inline PyObject *cpython_context_value(PyObject *variable) {
    PyObject *value = NULL;
    if (!PyContextVar_Get || PyContextVar_Get(variable, NULL, &value) != 0) PyErr_Clear();
    return value;
}
/* A copy of the current context in which the variable has the value. */
static inline PyObject *cpython_context_with(PyObject *variable, PyObject *value) {
    PyObject *context = cpython_copy_context();
    if (!context || cpython_enter_context(context) != 0) return Py_XDECREF(context), NULL;
    PyObject *token = PyContextVar_Set ? PyContextVar_Set(variable, value) : NULL;
    if (cpython_exit_context(context) != 0 || !token) Py_CLEAR(context);
    Py_XDECREF(token);
    return context;
}

/* Variadic calls, which Swift does not import. */
static inline PyObject *cpython_from_bytes(PyObject *int_type, PyObject *bytes) {
    return PyObject_CallMethod(int_type, "from_bytes", "Os", bytes, "little");
}
static inline PyObject *cpython_to_bytes(PyObject *number, Py_ssize_t count) {
    return PyObject_CallMethod(number, "to_bytes", "ns", count, "little");
}
static inline PyObject *cpython_call_method_named(PyObject *self, const char *name) {
    return PyObject_CallMethod(self, name, NULL);
}

/* Whether a thread is in Python's own code for imports, not in what it calls. With the GIL of its interpreter, under
   which it does not run on. */
static inline int cpython_is_importing(PyThreadState *thread) {
    PyObject *frame = PyThreadState_GetFrame ? (PyObject *)PyThreadState_GetFrame(thread) : NULL;
    PyObject *code = frame ? PyObject_GetAttrString(frame, "f_code") : NULL;
    PyObject *file = code ? PyObject_GetAttrString(code, "co_filename") : NULL;
    int is = file && PyUnicode_Check(file)
        && PyUnicode_CompareWithASCIIString(file, "<frozen importlib._bootstrap>") == 0;
    Py_XDECREF(file);
    Py_XDECREF(code);
    Py_XDECREF(frame);
    PyErr_Clear();
    return is;
}

/* What a thread state of 3.11 begins with, as its cpython/pystate.h has it: that does not change any more. */
typedef struct {
    void *before[18];
    PyObject *async_exc;
    unsigned long thread_id;
} cpython_thread_of_3_11;

/* Raises an exception in a thread at its next bytecode, or takes back one that is not raised yet (NULL). With the GIL.
   PyThreadState_SetAsyncExc takes the newest thread with that identifier. In 3.11 that is one which the thread is just
   starting: it has the identifier of its parent until it runs. Hit in its place it would never say that it has begun,
   for which its parent waits without end. So there the exception is put where it belongs, and that function has threads
   look: called for the calling thread, which has none to lose, it changes nothing else. */
static inline void cpython_interrupt(PyThreadState *thread, unsigned long identifier, PyObject *exception) {
    cpython_thread_of_3_11 *state = Py_Version >> 16 == 0x030B ? (cpython_thread_of_3_11 *)thread : NULL;
    if (!state || state->thread_id != identifier) {
        PyThreadState_SetAsyncExc(identifier, exception);
        return;
    }
    PyObject *old = state->async_exc;
    Py_XINCREF(exception);
    state->async_exc = exception;
    Py_XDECREF(old);
    if (exception) PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), NULL);
}

/* Before Py_InitializeEx: a function that is asked before things happen which Python calls events. */
static inline void cpython_add_audit_hook(
    int (*_Nonnull hook)(const char *_Nullable, PyObject *_Nullable, void *_Nullable)) {
    if (PySys_AddAuditHook) PySys_AddAuditHook(hook, NULL);
}
/* Before Py_InitializeEx: UTF-8 for files, arguments and print whatever LANG says. */
static inline void cpython_enable_utf8_mode(void) { if (&Py_UTF8Mode) Py_UTF8Mode = 1; }
/* Before Py_InitializeEx: what sys.executable, sys.prefix and virtual environments are found from. */
static inline int cpython_set_program_name(const wchar_t *name) {
    if (!Py_SetProgramName) return 0;
    Py_SetProgramName(name);
    return 1;
}

/* --- more interpreters than the main one ------------------------------------------------------ */

/* As cpython/pylifecycle.h and cpython/initconfig.h of 3.12 and later have them: outside the limited API. */
typedef struct {
    int use_main_obmalloc, allow_fork, allow_exec, allow_threads, allow_daemon_threads,
        check_multi_interp_extensions, gil;
} cpython_interpreter_config;
typedef struct {
    int type;
    const char *func, *err_msg;
    int exitcode;
} cpython_status;
extern cpython_status Py_NewInterpreterFromConfig(PyThreadState **, const cpython_interpreter_config *)
    __attribute__((weak));

static inline int cpython_has_own_gil(void) { return Py_NewInterpreterFromConfig != 0; }

/* Makes an interpreter, which the calling thread runs from then on: with the GIL of all, or its own. False where
   Python has none for us; then the calling thread runs what it ran before. Fork and exec would take the BEAM
   with them. Daemon threads are safe because no interpreter ever ends. */
static inline int cpython_new_interpreter(int own_gil) {
    if (!Py_NewInterpreterFromConfig) return !own_gil && Py_NewInterpreter() != 0;
    enum { shared_gil = 1, its_own_gil = 2 };
    const cpython_interpreter_config config = {
        .use_main_obmalloc = !own_gil, .allow_threads = 1, .allow_daemon_threads = 1,
        .check_multi_interp_extensions = 1, .gil = own_gil ? its_own_gil : shared_gil
    };
    PyThreadState *made = 0;
    return Py_NewInterpreterFromConfig(&made, &config).type == 0 && made;
}
