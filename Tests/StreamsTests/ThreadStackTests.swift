import Synchronization
import Testing

@testable import Streams

@Suite("The stack of a thread")
struct ThreadStackTests {
    /// Goes down while there is room, and says how many bytes that were.
    private static func descend(_ stack: ThreadStack, from start: UInt) -> UInt {
        withUnsafeTemporaryAllocation(byteCount: 256, alignment: 16) { memory in
            let here = UInt(bitPattern: memory.baseAddress)
            return stack.hasRoom ? descend(stack, from: start) : start - here
        }
    }

    private static func descend() -> UInt {
        withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) { memory in
            descend(.current, from: UInt(bitPattern: memory.baseAddress))
        }
    }

    @Test("is used but for a part, whatever its size", arguments: [192, 1024, 8192])
    func used(kilobytes: Int) throws {
        let used = Mutex<[UInt]>([])
        let isOver = Signal()
        try NativeThread.start(name: "test", stackSize: kilobytes << 10) {
            // The second time the bound is known.
            for _ in 0..<2 {
                let bytes = ThreadStackTests.descend()
                used.withLock { $0.append(bytes) }
            }
            isOver.post()
        }
        try #require(isOver.wait())
        let counts = used.withLock { $0 }
        let size = UInt(kilobytes) << 10
        #expect(counts.count == 2)
        for bytes in counts {
            #expect(bytes + (40 << 10) < size)
            // A thread has a stack for signals of 64 KB in its own.
            #expect(bytes + (150 << 10) > size)
        }
    }
}
