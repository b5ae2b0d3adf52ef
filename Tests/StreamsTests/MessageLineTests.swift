import Testing

@testable import Streams

@Suite("MessageLine")
struct MessageLineTests {
    private func message(_ place: Int) -> Payload {
        let message = Payload(number: place)
        message.place = place
        return message
    }

    @Test("what comes back has its place again, in whatever order it comes back", arguments: 0..<8)
    func places(seed: Int) {
        var random = Randomness(seed: seed)
        var line = MessageLine()
        for place in 0..<50 { line.append(message(place)) }
        var taken: [Payload] = []
        for _ in 0..<30 { if let first = line.popFirst() { taken.append(first) } }
        #expect(taken.map(\.number) == Array(0..<30))
        // Some stay away.
        let back = taken.shuffled(using: &random).prefix(20)
        for message in back { line.putBack(message) }
        #expect(line.count == 40)
        var expected = back.map(\.number).sorted() + Array(30..<50)
        #expect(line.first?.number == expected.first)
        // New ones come in, and old ones back, while it is drained.
        line.append(message(50))
        expected.append(50)
        for message in taken where !back.contains(where: { $0.number == message.number }) {
            line.putBack(message)
            expected.append(message.number)
        }
        expected.sort()
        var drained: [Int] = []
        while let first = line.popFirst() { drained.append(first.number) }
        #expect(drained == expected)
        #expect(line.isEmpty)
        #expect(line.first == nil)
    }

    @Test("gives away all of it")
    func takingAll() {
        var line = MessageLine()
        for place in 0..<3 { line.append(message(place)) }
        if let first = line.popFirst() { line.putBack(first) }
        var other = line.takeAll()
        #expect(line.isEmpty)
        #expect(other.count == 3)
        #expect(other.popFirst()?.number == 0)
        other.removeAll()
        #expect(other.isEmpty)
        #expect(other.popFirst()?.number == nil)
    }
}
