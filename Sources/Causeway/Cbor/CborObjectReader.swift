import CPython
import Python
import Streams

/// Python objects of CBOR. With the GIL.
struct CborObjectReader {
    private let bytes: UnsafeRawBufferPointer
    private var reader: CborReader

    /// The bytes stay valid and unchanged as long as this is used.
    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        reader = CborReader(bytes)
    }

    /// The one object of the bytes.
    mutating func whole() throws(PythonError) -> Object {
        let object = try object()
        guard reader.position == bytes.count else {
            throw valueError("\(bytes.count - reader.position) bytes follow the value")
        }
        return object
    }

    private mutating func next() throws(PythonError) -> CborReader.Item {
        do throws(CborError) { return try reader.next() } catch { throw valueError(error.text) }
    }

    private mutating func object(depth: Int = 0) throws(PythonError) -> Object {
        guard let object = try object(orEnd: depth) else { throw unexpectedEnd() }
        return object
    }

    private func unexpectedEnd() -> PythonError { valueError("an end of what has not begun") }

    /// Nil where something of unknown length ends.
    private mutating func object(orEnd depth: Int) throws(PythonError) -> Object? {
        guard depth < CborTermWriter.maximumDepth else {
            throw valueError("the CBOR is nested more than \(CborTermWriter.maximumDepth) levels deep")
        }
        switch try next() {
        case .unsigned(let number):
            return try Object(PyLong_FromUnsignedLong(UInt(truncatingIfNeeded: number)))
        case .negative(let number): return try negative(number)
        case .bytes(let range): return try newBytes(UnsafeRawBufferPointer(rebasing: bytes[range]))
        case .text(let range): return try text(UnsafeRawBufferPointer(rebasing: bytes[range]))
        case .piecesOfBytes:
            let whole = try pieces { item in if case .bytes(let range) = item { range } else { nil } }
            let made = whole.withUnsafeBytes { bytes in
                returning { () throws(PythonError) in try newBytes(bytes).take() }
            }
            return try Object(made)
        case .piecesOfText:
            let whole = try pieces { item in if case .text(let range) = item { range } else { nil } }
            let made = whole.withUnsafeBytes { bytes in
                returning { () throws(PythonError) in try text(bytes).take() }
            }
            return try Object(made)
        case .array(let count): return try array(count, depth)
        case .map(let count): return try map(count, depth)
        case .tag(let tag): return try tagged(tag, depth)
        case .simple(let value): return try simple(value)
        case .float(let value): return try Object(PyFloat_FromDouble(value))
        case .end: return nil
        }
    }

    private func negative(_ number: UInt64) throws(PythonError) -> Object {
        if let number = Int(exactly: number) { return try Object(PyLong_FromLong(-1 - number)) }
        return try bigInteger(isNegative: true, withUnsafeBytes(of: number.bigEndian) { Array($0) })
    }

    private func bigInteger(isNegative: Bool, _ content: [UInt8]) throws(PythonError) -> Object {
        let magnitude = CborBigNumber.littleEndian(isNegative: isNegative, of: content)
        let made = magnitude.withUnsafeBytes { magnitude in
            returning { () throws(PythonError) in
                try BigInteger.decode(isNegative: isNegative, magnitude: magnitude).take()
            }
        }
        return try Object(made)
    }

    private func text(_ utf8: UnsafeRawBufferPointer) throws(PythonError) -> Object {
        guard let base = utf8.baseAddress else { return try Object(PyUnicode_FromString("")) }
        return try Object(
            PyUnicode_DecodeUTF8(base.assumingMemoryBound(to: CChar.self), utf8.count, nil))
    }

    private mutating func pieces(_ range: (CborReader.Item) -> Range<Int>?) throws(PythonError) -> [UInt8] {
        var whole: [UInt8] = []
        while true {
            let item = try next()
            if item == .end { return whole }
            guard let piece = range(item) else { throw valueError("a piece of another kind than the rest") }
            whole.append(contentsOf: bytes[piece])
        }
    }

    private mutating func array(_ count: Int?, _ depth: Int) throws(PythonError) -> Object {
        let list = try Object(PyList_New(0))
        var length = 0
        while length != count {
            guard let element = try object(orEnd: depth + 1) else {
                guard count == nil else { throw unexpectedEnd() }
                break
            }
            guard PyList_Append(list.pointer, element.pointer) == 0 else { throw PythonError() }
            length += 1
        }
        return list
    }

    private mutating func map(_ count: Int?, _ depth: Int) throws(PythonError) -> Object {
        let dict = try Object(PyDict_New())
        var size = 0
        while size != count {
            guard let key = try object(orEnd: depth + 1) else {
                guard count == nil else { throw unexpectedEnd() }
                break
            }
            let hashable = try asKey(key)
            let value = try object(depth: depth + 1)
            guard PyDict_SetItem(dict.pointer, hashable.pointer, value.pointer) == 0 else {
                guard PyErr_ExceptionMatches(cpython_TypeError()) != 0 else { throw PythonError() }
                throw valueError("a map has a key that is a map, or an array with one or with an array")
            }
            size += 1
            guard PyDict_Size(dict.pointer) == size else { throw valueError("a map has a key twice") }
        }
        return dict
    }

    /// An array that is a key is a tuple: a list cannot be one.
    private func asKey(_ object: consuming Object) throws(PythonError) -> Object {
        cpython_is_list(object.pointer) == 0 ? object : try Object(PyList_AsTuple(object.pointer))
    }

    /// Of tags only those of large integers mean something to us: see `CborTermReader`.
    private mutating func tagged(_ tag: UInt64, _ depth: Int) throws(PythonError) -> Object {
        guard tag == 2 || tag == 3 else { return try object(depth: depth + 1) }
        guard case .bytes(let range) = try next() else {
            throw valueError("a large integer that is no bytes")
        }
        return try bigInteger(isNegative: tag == 3, Array(bytes[range]))
    }

    private func simple(_ value: UInt8) throws(PythonError) -> Object {
        switch value {
        case 20: return Object(owning: newBool(false))
        case 21: return Object(owning: newBool(true))
        case 22, 23: return Object(owning: newNone())
        default: throw valueError("the simple value \(value) has no form in Python")
        }
    }
}
