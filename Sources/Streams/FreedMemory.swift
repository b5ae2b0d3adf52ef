import CPlatform
import Glibc
import Synchronization

/// Memory that was freed, which the C library keeps for the next who asks for some.
///
/// That is right for what comes and goes. A queue that was much longer than it is usually would occupy for good what
/// it once had.
enum FreedMemory {
    /// A queue that has held so many bytes is worth the work.
    static let worthwhile = 64 << 20

    private static let delay: UInt32 = 1
    private static let isAsked = Atomic<Bool>(false)

    /// Gives it back to the system a second later, on a thread that does nothing else: it takes a tenth of a second
    /// for a gigabyte. Whoever fills queues of that length again and again so pays little for it.
    ///
    /// The corresponding C function is `malloc_trim`.
    static func giveBackLater() {
        guard !isAsked.exchange(true, ordering: .relaxed) else { return }
        do {
            try NativeThread.start(name: "causeway-trim", stackSize: 128 << 10) {
                sleep(delay)
                // First, so that what is freed from now on is given back by another.
                isAsked.store(false, ordering: .relaxed)
                cplatform_give_back_freed_memory()
            }
        } catch {
            // Without a thread it stays with the process.
            isAsked.store(false, ordering: .relaxed)
        }
    }
}
