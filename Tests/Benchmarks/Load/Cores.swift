import ArgumentParser
import Glibc
import Streams
import Synchronization

/// How far the processors are from each other: a cache line goes to another one and back. Prints nanoseconds, the median
/// of some thousand turns.
///
/// A virtual machine's processors are moved about by its host. While they share no cache, what passes between threads
/// takes two to three times as long (measured on one machine: turns of 60 ns and of 330 ns, seconds to minutes each).
struct Cores: ParsableCommand {
    static let turns = 500, samples = 15

    func run() throws {
        let line = Line()
        let other = Thread { line.answer(Self.turns * Self.samples) }
        let times = (0..<Self.samples).map { sample -> Int64 in
            let start = monotonicNanoseconds()
            line.ask(Self.turns, from: sample * Self.turns)
            return monotonicNanoseconds() - start
        }
        other.join()
        print(Double(times.sorted()[Self.samples / 2]) / Double(Self.turns))
    }
}

/// A number that two threads count up in turn: one makes it odd, the other even.
private final class Line: Sendable {
    private let number = Atomic<Int>(0)

    func ask(_ turns: Int, from first: Int) {
        for turn in first..<first + turns {
            number.store(2 * turn + 1, ordering: .releasing)
            wait(for: 2 * turn + 2)
        }
    }

    func answer(_ turns: Int) {
        for turn in 0..<turns {
            wait(for: 2 * turn + 1)
            number.store(2 * turn + 2, ordering: .releasing)
        }
    }

    /// Two threads that have to share a processor let each other have it.
    private func wait(for value: Int) {
        var patience = 10_000
        while number.load(ordering: .acquiring) != value {
            patience -= 1
            if patience < 0 { sched_yield() }
        }
    }
}
