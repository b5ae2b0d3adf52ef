import CPlatform
import CPython
import Glibc
import Python
import Streams

/// A piece of what a transport is to write: a `bytes` of which the piece has a reference.
struct Chunk {
    let object: PyPointer
    var start: UnsafeRawPointer
    var count: Int
}

/// What one transport writes at the end of a turn, without the GIL. Nobody else looks at it meanwhile.
///
/// The transport keeps it, with the memory of its array: one that is made for each turn costs more than all the rest.
struct Flight {
    /// How many pieces one system call takes.
    private static let pieces = 64

    var chunks: [Chunk] = []
    /// How many of them are written.
    private(set) var written = 0
    private(set) var bytes = 0
    private(set) var error: Errno?
    /// Something is to be done as soon as it is written.
    private var isAwaited = false

    /// Gets what is to be written.
    mutating func takeOff(_ waiting: inout [Chunk], isAwaited: Bool) {
        swap(&chunks, &waiting)
        written = 0
        bytes = 0
        error = nil
        self.isAwaited = isAwaited
    }

    /// Whether nothing is to be done at once.
    var isDone: Bool { !isAwaited && error == nil && written == chunks.count }

    /// Writes what there is room for.
    mutating func fly(_ fd: Int32, isSocket: Bool) {
        while written < chunks.count {
            let transfer = writeSome(fd, isSocket)
            switch transfer {
            case .bytes(let count): advance(count)
            case .wouldBlock, .noMemory: return
            case .failed(let error):
                self.error = error
                return
            }
        }
    }

    @inline(__always)
    private func writeSome(_ fd: Int32, _ isSocket: Bool) -> Transfer {
        let left = chunks.count - written
        if left == 1 {
            let chunk = chunks[written]
            let bytes = UnsafeRawBufferPointer(start: chunk.start, count: chunk.count)
            return writeAvailable(fd, bytes, isSocket: isSocket)
        }
        return withUnsafeTemporaryAllocation(of: iovec.self, capacity: Flight.pieces) { vectors in
            let count = min(left, Flight.pieces)
            for index in 0..<count {
                let chunk = chunks[written + index]
                vectors[index] = iovec(
                    iov_base: UnsafeMutableRawPointer(mutating: chunk.start), iov_len: chunk.count)
            }
            return gatherAvailable(fd, vectors, count, isSocket: isSocket)
        }
    }

    private mutating func advance(_ count: Int) {
        bytes += count
        var rest = count
        while written < chunks.count {
            let size = chunks[written].count
            if rest < size {
                chunks[written].start += rest
                chunks[written].count = size - rest
                return
            }
            rest -= size
            written += 1
        }
    }
}

extension LoopCore {
    /// Takes what is to be written from the transports.
    func takeOff() {
        guard !dirty.isEmpty else { return }
        if dirty.count == 1, let only = dirty.popLast() { return only.takeOff() }
        for transport in dirty { transport.takeOff() }
        dirty.removeAll(keepingCapacity: true)
    }

    /// Writes. True where nothing is to be done at once because of that.
    func fly() -> Bool {
        var isDone = true
        for transport in flights {
            transport.fly()
            // Where it is not all written, the transport is to ask for room first.
            if !transport.hasFlown { isDone = false }
        }
        for index in datagramFlights.indices {
            datagramFlights[index].fly()
            if !datagramFlights[index].isDone { isDone = false }
        }
        return isDone
    }

    /// Gives back to the transports what is not written.
    func land() throws(PythonError) {
        guard hasFlights else { return }
        if flights.count == 1, datagramFlights.isEmpty, let only = flights.popLast() {
            return try only.land()
        }
        let landed = flights
        let landedDatagrams = datagramFlights
        flights.removeAll(keepingCapacity: true)
        datagramFlights.removeAll(keepingCapacity: true)
        var raised: Exception?
        for transport in landed {
            do throws(PythonError) { try transport.land() } catch { keep(&raised) }
        }
        for flight in landedDatagrams {
            do throws(PythonError) { try flight.transport.land(flight) } catch { keep(&raised) }
        }
        guard let raised = raised.take() else { return }
        raised.restore()
        throw PythonError()
    }

    /// The others land all the same; the first is what ends the loop.
    private func keep(_ raised: inout Exception?) {
        let exception = Exception.take()
        if raised == nil { raised = exception }
    }

    /// Something was being written when the loop waited.
    var hasFlights: Bool { !flights.isEmpty || !datagramFlights.isEmpty }
}
