import CPython

/// A pointer to a Python type.
public typealias PyType = OpaquePointer

/// A type seen as an object.
@inlinable
public func asObject(_ type: PyType) -> PyPointer {
    UnsafeMutableRawPointer(type).assumingMemoryBound(to: PyObject.self)
}

/// An object that is known to be a type.
@inlinable
public func asType(_ object: PyPointer) -> PyType { OpaquePointer(object) }

// One overload for each C signature of a slot: the closure becomes a C function when compiled.

@inline(__always) private func address<F>(_ function: F) -> UnsafeMutableRawPointer {
    // Only ever C function pointers, which are one word.
    unsafeBitCast(function, to: UnsafeMutableRawPointer.self)
}
/// `reprfunc`, `getiterfunc`, `iternextfunc`, `unaryfunc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?) -> PyPointer?) -> PyType_Slot {
    PyType_Slot(slot: id, pfunc: address(f))
}
/// `lenfunc`, `hashfunc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?) -> Int) -> PyType_Slot {
    PyType_Slot(slot: id, pfunc: address(f))
}
/// `inquiry`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?) -> Int32) -> PyType_Slot {
    PyType_Slot(slot: id, pfunc: address(f))
}
/// `destructor`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?) -> Void) -> PyType_Slot {
    PyType_Slot(slot: id, pfunc: address(f))
}
/// `binaryfunc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?, PyPointer?) -> PyPointer?) -> PyType_Slot {
    PyType_Slot(slot: id, pfunc: address(f))
}
/// `ternaryfunc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?, PyPointer?, PyPointer?) -> PyPointer?)
    -> PyType_Slot
{ PyType_Slot(slot: id, pfunc: address(f)) }
/// `objobjproc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?, PyPointer?) -> Int32) -> PyType_Slot {
    PyType_Slot(slot: id, pfunc: address(f))
}
/// `ssizeargfunc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?, Int) -> PyPointer?) -> PyType_Slot {
    PyType_Slot(slot: id, pfunc: address(f))
}
/// `richcmpfunc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?, PyPointer?, Int32) -> PyPointer?)
    -> PyType_Slot
{ PyType_Slot(slot: id, pfunc: address(f)) }
/// `newfunc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyType?, PyPointer?, PyPointer?) -> PyPointer?)
    -> PyType_Slot
{ PyType_Slot(slot: id, pfunc: address(f)) }
/// `initproc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?, PyPointer?, PyPointer?) -> Int32)
    -> PyType_Slot
{ PyType_Slot(slot: id, pfunc: address(f)) }
/// `getbufferproc`.
public func slot(
    _ id: Int32, _ f: @convention(c) (PyPointer?, UnsafeMutablePointer<Py_buffer>?, Int32) -> Int32
) -> PyType_Slot { PyType_Slot(slot: id, pfunc: address(f)) }
/// `releasebufferproc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?, UnsafeMutablePointer<Py_buffer>?) -> Void)
    -> PyType_Slot
{ PyType_Slot(slot: id, pfunc: address(f)) }
/// `traverseproc`.
public func slot(_ id: Int32, _ f: @convention(c) (PyPointer?, visitproc?, UnsafeMutableRawPointer?) -> Int32)
    -> PyType_Slot
{ PyType_Slot(slot: id, pfunc: address(f)) }
/// A zero-terminated table of methods, members or getters.
public func slot<Row>(_ id: Int32, table: [Row]) -> PyType_Slot {
    PyType_Slot(slot: id, pfunc: UnsafeMutableRawPointer(immortal(table)))
}
/// A docstring.
public func slot(_ id: Int32, doc: StaticString) -> PyType_Slot {
    PyType_Slot(slot: id, pfunc: UnsafeMutableRawPointer(mutating: UnsafeRawPointer(doc.utf8Start)))
}

/// A copy of an array that lives for ever, as Python wants of the tables of types and modules.
public func immortal<Element>(_ elements: [Element]) -> UnsafeMutablePointer<Element> {
    let copy = UnsafeMutablePointer<Element>.allocate(capacity: elements.count)
    copy.initialize(from: elements, count: elements.count)
    return copy
}

/// The C string of a literal.
@inlinable
public func cString(_ literal: StaticString) -> UnsafePointer<CChar> {
    // A StaticString is NUL-terminated and lives for ever.
    UnsafeRawPointer(literal.utf8Start).assumingMemoryBound(to: CChar.self)
}

/// A function that takes positional arguments as an array: `METH_FASTCALL`.
public typealias FastFunction = @convention(c) (PyPointer?, UnsafePointer<PyPointer?>?, Int) -> PyPointer?
/// A row of a method table. `doc` begins with a signature line that `inspect.signature` understands.
public func method(_ name: StaticString, _ doc: StaticString, _ function: FastFunction) -> PyMethodDef {
    // METH_FASTCALL tells Python which signature the pointer really has.
    PyMethodDef(
        ml_name: cString(name), ml_meth: unsafeBitCast(function, to: PyCFunction.self),
        ml_flags: METH_FASTCALL, ml_doc: cString(doc))
}

/// A function that takes arguments by position and by name: `METH_FASTCALL | METH_KEYWORDS`.
public typealias NamedFunction =
    @convention(c) (PyPointer?, UnsafePointer<PyPointer?>?, Int, PyPointer?) -> PyPointer?

/// A row of a method table for a method that `bytes` documents.
public func method(_ name: StaticString, asBytes function: NamedFunction) -> PyMethodDef {
    PyMethodDef(
        ml_name: cString(name), ml_meth: unsafeBitCast(function, to: PyCFunction.self),
        ml_flags: METH_FASTCALL | METH_KEYWORDS, ml_doc: cString("As the method of bytes."))
}

/// A row for a method that takes arguments by name too: see `Arguments`.
public func method(_ name: StaticString, keywords doc: StaticString, _ function: NamedFunction) -> PyMethodDef
{
    var row = method(name, asBytes: function)
    row.ml_doc = cString(doc)
    return row
}

/// The same for a method that needs no instance: it is given NULL for one.
public func method(_ name: StaticString, static function: NamedFunction) -> PyMethodDef {
    var row = method(name, asBytes: function)
    row.ml_flags |= METH_STATIC
    return row
}

/// A result of `tp_richcompare` from how two values compare: below, equal to or above 0.
public func compared(_ order: Int, _ operation: Int32) -> PyPointer {
    switch operation {
    case Py_EQ: newBool(order == 0)
    case Py_NE: newBool(order != 0)
    case Py_LT: newBool(order < 0)
    case Py_LE: newBool(order <= 0)
    case Py_GT: newBool(order > 0)
    default: newBool(order >= 0)
    }
}

/// A row of a table of attributes that are fields of the object's struct.
public func member(
    _ name: StaticString, _ type: Int32, _ offset: Int?, readOnly: Bool = false, _ doc: StaticString
) -> PyMemberDef {
    PyMemberDef(
        name: cString(name), type: type, offset: offset ?? 0, flags: readOnly ? 1 : 0, doc: cString(doc))
}

/// A row of a table of attributes that are computed when they are read, and cannot be set.
public func property(
    _ name: StaticString, _ doc: StaticString,
    _ getter: @convention(c) (PyPointer?, UnsafeMutableRawPointer?) -> PyPointer?
) -> PyGetSetDef {
    PyGetSetDef(name: cString(name), get: getter, set: nil, doc: cString(doc), closure: nil)
}

/// What distinguishes one heap type from another.
public struct TypeFlags: OptionSet, Sendable {
    /// The bits of `Py_TPFLAGS_*`.
    public let rawValue: UInt32
    /// From bits.
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// `Py_TPFLAGS_DISALLOW_INSTANTIATION`: only the core makes instances.
    public static let noConstructor = TypeFlags(rawValue: 1 << 7)
    /// `Py_TPFLAGS_IMMUTABLETYPE`.
    public static let immutable = TypeFlags(rawValue: 1 << 8)
    /// `Py_TPFLAGS_BASETYPE`: may be subclassed.
    public static let base = TypeFlags(rawValue: 1 << 10)
    /// `Py_TPFLAGS_HAVE_GC`: takes part in the collection of cycles.
    public static let collected = TypeFlags(rawValue: 1 << 14)
    /// `Py_TPFLAGS_DEFAULT`.
    public static let standard = TypeFlags(rawValue: 1 << 18)
}

/// Makes a type from its slots. `name` is what `repr` shows, with its module.
///
/// The corresponding C function is `PyType_FromModuleAndSpec`. Throws what that raises.
public func makeType<Instance>(
    in module: PyPointer, name: StaticString, _: Instance.Type, flags: TypeFlags, slots: [PyType_Slot]
) throws(PythonError) -> PyType {
    try makeType(
        in: module, base: nil, name: name, size: MemoryLayout<Instance>.size, flags: flags, slots: slots)
}

/// Makes a type that adds slots to another and has no fields of its own. It can be subclassed no further.
/// Throws what the C function `PyType_FromModuleAndSpec` raises.
public func makeSubtype(in module: PyPointer, of base: PyType?, name: StaticString, slots: [PyType_Slot])
    throws(PythonError) -> PyType
{
    try makeType(in: module, base: base.map(asObject), name: name, size: 0, flags: .immutable, slots: slots)
}

/// Makes a type that adds fields to another: `Instance` begins with the fields of that. It can be subclassed.
///
/// Throws where the other has more fields than `fieldsOfBase` bytes of the struct are for.
public func makeSubtype<Instance>(
    in module: PyPointer, of base: PyPointer, fieldsOfBase: Int?, name: StaticString, _: Instance.Type,
    slots: [PyType_Slot]
) throws(PythonError) -> PyType {
    let size = try Object(PyObject_GetAttrString(base, "__basicsize__"))
    guard PyLong_AsLong(size.pointer) == fieldsOfBase ?? -1 else {
        throw runtimeError("the base class of \(name) has other fields in this Python")
    }
    return try makeType(
        in: module, base: base, name: name, size: MemoryLayout<Instance>.size,
        flags: [.base, .collected], slots: slots)
}

private func makeType(
    in module: PyPointer, base: PyPointer?, name: StaticString, size: Int, flags: TypeFlags,
    slots: [PyType_Slot]
) throws(PythonError) -> PyType {
    let table = immortal(slots + [PyType_Slot()])
    defer { table.deallocate() }
    var spec = PyType_Spec(
        name: cString(name), basicsize: Int32(truncatingIfNeeded: size), itemsize: 0,
        flags: flags.union(.standard).rawValue, slots: table)
    return asType(try Object(PyType_FromModuleAndSpec(module, &spec, base)).take())
}
