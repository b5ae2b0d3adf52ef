import CPlatform

/// Looks again and again for a moment before a thread sleeps, where that has paid lately.
///
/// Going to sleep and being woken costs both sides a system call and the kernel's time to switch: several
/// microseconds, as much as a small call itself. Where calls come back to back the next one is there
/// sooner than that. Where they do not, spinning only burns a core: after a spin in vain the thread
/// sleeps at once, until a sleep turns out to have been short.
public struct Spin {
    /// How long one spin may last, in nanoseconds.
    private static let limit: Int64 = 20_000
    /// How short a sleep must be to make spinning worth while. It holds the time of two wake-ups, which a
    /// spin spares.
    private static let shortSleep: Int64 = 50_000

    private var paysOff = false
    private var asleepSince: Int64 = 0

    /// Begins without spinning.
    public init() {}

    /// Spins, if that has paid lately, until there is work. False when the thread is to sleep instead.
    @inlinable
    public mutating func wait(until hasWork: () -> Bool) -> Bool {
        if hasWork() { return true }
        guard begins() else { return false }
        repeat {
            for _ in 0..<32 {
                cplatform_pause()
                if hasWork() { return true }
            }
        } while lasts()
        return false
    }

    /// The thread was woken after it was told to sleep.
    public mutating func woken() {
        paysOff = monotonicNanoseconds() - asleepSince < Spin.shortSleep
    }

    @usableFromInline mutating func begins() -> Bool {
        asleepSince = monotonicNanoseconds()
        return paysOff
    }

    @usableFromInline mutating func lasts() -> Bool {
        let now = monotonicNanoseconds()
        if now - asleepSince < Spin.limit { return true }
        paysOff = false
        asleepSince = now
        return false
    }
}
