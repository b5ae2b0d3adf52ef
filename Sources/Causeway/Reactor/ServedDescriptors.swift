import Streams
import Synchronization

/// The descriptors that some reactor of this process owns, so that none is handed over twice: both would
/// close it, the second time perhaps when the number is somebody else's already.
final class ServedDescriptors: Sendable {
    static let shared = ServedDescriptors()

    private let numbers = Mutex<Set<Int32>>([])

    /// Notes a descriptor that is about to be handed over; false when a reactor owns it already.
    func claim(_ number: Int32) -> Bool { numbers.withLock { $0.insert(number).inserted } }

    /// Forgets a descriptor; to be done before it is closed.
    func release(_ number: Int32) { numbers.withLock { _ = $0.remove(number) } }
}
