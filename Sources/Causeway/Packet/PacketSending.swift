import CPython
import Python
import Streams

/// How packets are queued and written.
extension PacketLink {
    /// Writes what is queued and due, unless another thread does so already. Without the GIL if there may be much.
    func flush(isDue: Bool) { garbage.collect { write(isDue: isDue) } }

    private func write(isDue: Bool) {
        while lock.withLock({ c in
            guard c.sendFailure == nil else { return false }
            if !isDue, options.grace > 0, output.size < 65536, c.flushDue > monotonicNanoseconds() {
                return false
            }
            guard output.begin() else { return false }
            c.isRung = false
            c.flushDue = .max
            return true
        }) {
            let outcome = output.write(to: target)
            var wakers: [@Sendable () -> Void] = []
            var mustRing = false
            var hand = Hand()
            lock.withLock { c in
                let written = output.end()
                c.counters.bytesSent += written
                switch outcome {
                case .done: if !c.work.isEmpty, c.running == 0 { hand = needHand(&c) }
                case .wouldBlock:
                    c.flushDue = 0
                    mustRing = c.isPolling && !c.pollsForRoom
                    hand = ensureStandby(&c)
                case .failed(let error):
                    if c.sendFailure == nil { c.sendFailure = "sending failed: \(error)" }
                    mustRing = c.isPolling
                    hand = ensureStandby(&c)
                }
                if c.sendFailure != nil { output.drop() }
                if written > 0 || c.sendFailure != nil { wakers = takeWatchers(&c) }
            }
            for wake in wakers { wake() }
            if mustRing { ring() }
            follow(hand)
            if case .done = outcome { continue }
            return
        }
    }

    /// Whether a packet may be added, which is counted. With the lock.
    func mayAppend(_ c: inout Contents) -> Bool {
        if c.sendFailure != nil || c.isEndSent { return false }
        c.counters.packetsSent += 1
        if options.ticks { tick(&c, sent: 1) }
        if options.grace > 0, c.flushDue == .max { c.flushDue = monotonicNanoseconds() + options.grace }
        return true
    }

    /// Adds a packet. With the lock. `payload` is a borrowed `bytes`, held where it is large: then with the GIL.
    func append(_ c: inout Contents, _ head: PacketHead, _ payload: PyPointer?) {
        guard mayAppend(&c) else { return }
        guard let payload else { return output.append(head, UnsafeRawBufferPointer(start: nil, count: 0)) }
        let bytes = UnsafeRawBufferPointer(start: PyBytes_AsString(payload), count: PyBytes_Size(payload))
        if bytes.count < PacketOutput.heldSize { return output.append(head, bytes) }
        Py_IncRef(payload)
        output.append(head, held: bytes, owner: PacketBytes(owning: payload, count: bytes.count, garbage))
    }

    func tick(_ c: inout Contents, sent: Int = 0, received: Int = 0) {
        if c.ticksSent + c.ticksReceived == 0 { c.hooks.append(.ticks) }
        c.ticksSent += sent
        c.ticksReceived += received
    }

    func append(_ c: inout Contents, _ head: PacketHead, text: String) {
        guard mayAppend(&c) else { return }
        var text = text
        text.withUTF8 { output.append(head, UnsafeRawBufferPointer($0)) }
    }

    /// Sees to it that what was appended is written soon. With the lock; what is returned is to be done after it.
    func willFlush(_ c: inout Contents) -> (ring: Bool, hand: Hand) {
        if c.isRung { return (false, Hand()) }
        c.isRung = true
        // A reader that does not wait will look before it does.
        if c.isPlaceTaken { return (c.isPolling, Hand()) }
        return (false, ensureStandby(&c))
    }
}
