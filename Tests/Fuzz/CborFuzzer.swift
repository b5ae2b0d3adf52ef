// libFuzzer on the reader of CBOR: `make fuzz`. It is compiled into one module with the codec, and what is wrong traps.

/// Reads bytes item by item, and writes again what it finds.
@c public func LLVMFuzzerTestOneInput(_ data: UnsafePointer<UInt8>?, _ size: Int) -> Int32 {
    let bytes = UnsafeRawBufferPointer(start: data, count: size)
    var reader = CborReader(bytes)
    while reader.position < size {
        let start = reader.position
        do throws(CborError) {
            let item = try reader.next()
            precondition(reader.position > start && reader.position <= size)
            check(item, bytes)
        } catch {
            precondition(!error.text.isEmpty)
            return 0
        }
    }
    return 0
}

private func check(_ item: CborReader.Item, _ bytes: UnsafeRawBufferPointer) {
    var writer = CborWriter()
    switch item {
    case .unsigned(let number): writer.unsigned(number)
    case .negative(let number): writer.negative(number)
    case .bytes(let range): writer.bytes(UnsafeRawBufferPointer(rebasing: bytes[range]))
    case .text(let range): writer.text(UnsafeRawBufferPointer(rebasing: bytes[range]))
    case .float(let value): writer.float(value)
    default: return
    }
    writer.bytes.withUnsafeBytes { written in
        var again = CborReader(written)
        guard let read = try? again.next(), again.position == written.count else {
            preconditionFailure("what was written cannot be read")
        }
        switch (item, read) {
        case (.bytes(let one), .bytes(let other)), (.text(let one), .text(let other)):
            precondition(bytes[one].elementsEqual(written[other]))
        case (.float(let one), .float(let other)):
            precondition(one == other || (one.isNaN && other.isNaN))
        default: precondition(item == read)
        }
    }
}
