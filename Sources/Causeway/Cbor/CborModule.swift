import CPython
import Python

/// The functions of `_causeway` for CBOR.
enum CborModule {
    static var functions: [PyMethodDef] {
        [
            method("_cbor_dumps", "_cbor_dumps($module, value, /)\n--\n\nA value as CBOR.") {
                _, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let value = arguments?[0] else {
                        throw typeError("dumps() takes one value")
                    }
                    var writer = CborObjectWriter()
                    try writer.write(value)
                    let made = writer.writer.bytes.withUnsafeBytes { bytes in
                        returning { () throws(PythonError) in try newBytes(bytes).take() }
                    }
                    return try Object(made).take()
                }
            },
            method("_cbor_loads", "_cbor_loads($module, data, /)\n--\n\nThe value of CBOR.") {
                _, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let data = arguments?[0] else {
                        throw typeError("loads() takes one bytes-like")
                    }
                    let made = try withBuffer(data) { bytes throws(PythonError) -> PyPointer in
                        var reader = CborObjectReader(bytes)
                        return try reader.whole().take()
                    }
                    return made
                }
            },
        ]
    }
}
