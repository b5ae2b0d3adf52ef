import CPython
import Python
import Streams

/// Socket addresses as Python's `socket` module has them.
extension SocketAddress {
    /// `(host, port)`, `(host, port, flow, scope)`, a path, or `None` for a socket without a name.
    func object() throws(PythonError) -> Object {
        switch parts {
        case .ipv4(let host, let port): return try pythonTuple(try newString(host), [Int(port)])
        case .ipv6(let host, let port, let flow, let scope):
            return try pythonTuple(try newString(host), [Int(port), Int(flow), Int(scope)])
        case .unix(let path):
            if path.isEmpty { return Object(owning: newNone()) }
            let made = path.withUnsafeBytes { bytes in
                let text = bytes.bindMemory(to: CChar.self).baseAddress
                return path.first == 0
                    ? PyBytes_FromStringAndSize(text, bytes.count)
                    : PyUnicode_DecodeFSDefaultAndSize(text, bytes.count)
            }
            return try Object(made)
        case .other: return Object(owning: newNone())
        }
    }

    /// Sets `addr`, `port` and `type` of a dict.
    func describe(in info: PyPointer) throws(PythonError) {
        switch parts {
        case .ipv4(let host, let port), .ipv6(let host, let port, _, _):
            try set("addr", newString(host), in: info)
            try set("port", Object(PyLong_FromLong(Int(port))), in: info)
            try set("type", newString("tcp"), in: info)
        case .unix, .other: try set("type", newString("unix"), in: info)
        }
    }

    /// The address that a Python object says, in the forms of `object()`; hosts must be numeric.
    static func from(_ object: PyPointer) throws(PythonError) -> SocketAddress {
        if cpython_is_tuple(object) != 0 { return try internet(object) }
        let path =
            try cpython_is_unicode(object) != 0
            ? Object(PyUnicode_EncodeFSDefault(object)) : Object(retaining: object)
        let bytes = try withBuffer(path.pointer) { bytes throws(PythonError) in Array(bytes) }
        guard let address = SocketAddress(path: bytes) else {
            throw valueError("the path of a Unix socket has at most 107 bytes, not \(bytes.count)")
        }
        return address
    }

    private static func internet(_ tuple: PyPointer) throws(PythonError) -> SocketAddress {
        let count = PyTuple_Size(tuple)
        guard (2...4).contains(count), let host = PyTuple_GetItem(tuple, 0), cpython_is_unicode(host) != 0
        else {
            throw typeError("an address is (host, port), (host, port, flow, scope) or a path")
        }
        let name = try text(of: host)
        let port = try number(tuple, 1, UInt16.max)
        let flow = count > 2 ? try number(tuple, 2, UInt32.max) : 0
        let scope = count > 3 ? try number(tuple, 3, UInt32.max) : 0
        guard let address = SocketAddress(host: name, port: port, flow: flow, scope: scope) else {
            throw valueError("the host of an address must be numeric here, not \(name): resolve it first")
        }
        return address
    }

    private static func number<Number: FixedWidthInteger>(_ tuple: PyPointer, _ index: Int, _ limit: Number)
        throws(PythonError) -> Number
    {
        guard let item = PyTuple_GetItem(tuple, index) else { throw PythonError() }
        let value = PyLong_AsLong(item)
        if value == -1, PyErr_Occurred() != nil { throw PythonError() }
        guard let number = Number(exactly: value) else {
            throw raised(cpython_OverflowError(), "\(value) is not from 0 to \(limit)")
        }
        return number
    }
}

private func pythonTuple(_ first: consuming Object, _ numbers: [Int]) throws(PythonError) -> Object {
    let tuple = try Object(PyTuple_New(1 + numbers.count))
    PyTuple_SetItem(tuple.pointer, 0, first.take())
    for (index, number) in numbers.enumerated() {
        PyTuple_SetItem(tuple.pointer, index + 1, try Object(PyLong_FromLong(number)).take())
    }
    return tuple
}
