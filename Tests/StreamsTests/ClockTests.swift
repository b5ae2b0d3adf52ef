import Glibc
import Synchronization
import Testing

@testable import Streams

@Suite("Clock")
struct ClockTests {
    @Test("never goes back, also from thread to thread")
    func monotonic() {
        let latest = Mutex<Int64>(monotonicNanoseconds())
        onThreads(3) { _ in
            for _ in 0..<2000 {
                latest.withLock { latest in
                    let now = monotonicNanoseconds()
                    if now < latest { Issue.record("\(now) after \(latest)") }
                    latest = now
                }
            }
        }
    }

    @Test("counts nanoseconds")
    func unit() {
        let start = monotonicNanoseconds()
        usleep(2000)
        let elapsed = monotonicNanoseconds() - start
        #expect(elapsed >= 2_000_000)
        #expect(elapsed < Int64(patience) * 1_000_000_000)
    }
}
