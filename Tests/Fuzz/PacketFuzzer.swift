// libFuzzer on the decoder: `make fuzz`. It is compiled into one module with the codec, and what is wrong traps.

/// Decodes bytes as a stream of packets, and encodes again what it finds.
@c public func LLVMFuzzerTestOneInput(_ data: UnsafePointer<UInt8>?, _ size: Int) -> Int32 {
    let bytes = UnsafeBufferPointer(start: data, count: size)
    var start = 0
    while start < size {
        do throws(PacketError) {
            let rest = bytes.span.extracting(droppingFirst: start)
            guard case .packet(let head, let payload) = try FoundPacket.decode(rest, maximum: 1 << 20) else {
                checkIncomplete(rest)
                return 0
            }
            precondition(payload.upperBound <= rest.count)
            check(head, payload: rest.extracting(payload))
            start += payload.upperBound
        } catch {
            precondition(!error.description.isEmpty)
            return 0
        }
    }
    return 0
}

private func checkIncomplete(_ bytes: Span<UInt8>) {
    guard let found = try? FoundPacket.decode(bytes, maximum: 1 << 20), case .incomplete(let needed) = found,
        needed > bytes.count
    else { preconditionFailure("a part of a packet that needs nothing more") }
    if let (head, payload) = try? FoundPacket.decodeHead(bytes) {
        precondition(payload.upperBound == needed && payload.lowerBound <= bytes.count)
        check(head, payload: bytes.extracting(payload.lowerBound..<bytes.count))
    }
}

/// Only padding may be lost.
private func check(_ head: PacketHead, payload: Span<UInt8>) {
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: PacketHead.longest + payload.count) { memory in
        guard let base = memory.baseAddress else { return }
        let size = head.write(payload: payload.count, to: base)
        for index in 0..<payload.count { memory[size + index] = payload[index] }
        let again = UnsafeBufferPointer(start: base, count: size + payload.count).span
        guard let found = try? FoundPacket.decode(again, maximum: .max) else {
            preconditionFailure("what was encoded is no packet")
        }
        precondition(found == .packet(head, payload: size..<(size + payload.count)))
    }
}
