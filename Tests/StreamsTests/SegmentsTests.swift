import Testing

@testable import Streams

@Suite("Segments")
struct SegmentsTests {
    @Test("gives back in the order it was given", arguments: [0, 1, 2, 255, 256, 257, 512, 513, 10_000])
    func order(count: Int) {
        var segments = Segments<Int>()
        for number in 0..<count { segments.append(number) }
        #expect(segments.count == count)
        #expect(segments.isEmpty == (count == 0))
        #expect(segments.first == (count == 0 ? nil : 0))
        var taken: [Int] = []
        while let number = segments.popFirst() { taken.append(number) }
        #expect(taken == Array(0..<count))
        #expect(segments.isEmpty)
        #expect(segments.first == nil)
        #expect(segments.popFirst() == nil)
        segments.append(7)
        #expect(segments.popFirst() == 7)
    }

    @Test("holds optional elements like others")
    func optionalElements() {
        var segments = Segments<Int?>()
        segments.append(nil)
        segments.append(1)
        #expect(segments.first == .some(.none))
        #expect(segments.popFirst() == .some(.none))
        #expect(segments.popFirst() == 1)
        #expect(segments.popFirst() == nil)
    }

    @Test("does what a plain array does, whatever is added and taken", arguments: 0..<8)
    func model(seed: Int) {
        var random = Randomness(seed: seed)
        var segments = Segments<Int>()
        var model: [Int] = []
        var next = 0
        for phase in 0..<12 {
            for _ in 0..<Int.random(in: 1...1200, using: &random) {
                if Int.random(in: 0..<10, using: &random) < (phase % 2 == 0 ? 8 : 2) {
                    segments.append(next)
                    model.append(next)
                    next += 1
                } else {
                    let expected = model.isEmpty ? nil : model.removeFirst()
                    let element = segments.popFirst()
                    if element != expected { Issue.record("\(element as Any), not \(expected as Any)") }
                }
                if segments.count != model.count || segments.first != model.first {
                    Issue.record("\(segments.count) elements, not \(model.count)")
                }
            }
        }
        segments.removeAll()
        #expect(segments.isEmpty)
    }

    @Test("lets go of an element when it is taken, and of the rest at the end")
    func lettingGo() {
        let living = Tracked.Living()
        var segments = Segments<Tracked>()
        for _ in 0..<600 { segments.append(Tracked(living)) }
        #expect(living.count == 600)
        for left in (300..<600).reversed() {
            #expect(segments.popFirst() != nil)
            #expect(living.count == left)
        }
        segments.removeAll()
        #expect(living.count == 0)
        for _ in 0..<600 { segments.append(Tracked(living)) }
        segments = Segments()
        #expect(living.count == 0)
    }
}
