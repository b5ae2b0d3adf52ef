import CPlatform
import Glibc
import Streams

/// What is to be written to a program, in order.
struct InputQueue {
    private var pieces: [Payload] = []
    private var first = 0
    /// What of the first piece is written already.
    private var written = 0
    /// How many bytes wait.
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    mutating func append(_ piece: Payload) {
        if piece.count == 0 { return }
        pieces.append(piece)
        count += piece.count
    }

    /// Writes until all is written or there is no room, at most so many times. True where there was no room.
    mutating func write(to number: Int32, times: Int) throws(Errno) -> Bool {
        for _ in 0..<times where !isEmpty {
            let piece = pieces[first]
            let place = written
            let size: Int
            do throws(Errno) {
                size = try retryingOnInterrupt {
                    // Within the piece, which `pieces` holds: what is written of it is less than it has.
                    Glibc.write(number, piece.bytes.baseAddress?.advanced(by: place), piece.count - place)
                }
            } catch {
                if error.code == EAGAIN { return true }
                throw error
            }
            advance(by: size)
        }
        return false
    }

    private mutating func advance(by size: Int) {
        count -= size
        written += size
        guard written == pieces[first].count else { return }
        written = 0
        first += 1
        // So that removing from the front costs the same however many there are.
        if first == pieces.count || first >= 256 {
            pieces.removeFirst(first)
            first = 0
        }
    }

    /// Forgets what waits.
    mutating func removeAll() { self = InputQueue() }
}
