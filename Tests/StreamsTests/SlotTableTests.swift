import Testing

@testable import Streams

@Suite("SlotTable")
struct SlotTableTests {
    @Test("finds what was put in, until it is taken out")
    func basics() throws {
        var table = SlotTable<String>()
        #expect(table.count == 0)
        let one = try insert("one", into: &table)
        let two = try insert("two", into: &table)
        #expect(one != two)
        #expect(table[one] == "one")
        #expect(table[two] == "two")
        #expect(table.count == 2)
        table.remove(one)
        #expect(table[one] == nil)
        #expect(table[two] == "two")
        #expect(table.count == 1)
        #expect(table.elements == ["two"])
    }

    @Test("a place that is used again never answers to an old token")
    func generations() throws {
        var table = SlotTable<Int>()
        var old: [Poller.Token] = []
        for number in 0..<1000 {
            let token = try insert(number, into: &table)
            #expect(token.slot == 0)
            #expect(table[token] == number)
            for token in old where table[token] != nil { Issue.record("\(token) answers") }
            table.remove(token)
            old.append(token)
        }
        #expect(Set(old.map(\.bits)).count == 1000)
    }

    @Test("an old token takes nothing out")
    func removingByOldToken() throws {
        var table = SlotTable<Int>()
        let old = try insert(1, into: &table)
        table.remove(old)
        table.remove(old)
        let new = try insert(2, into: &table)
        #expect(new.slot == old.slot)
        table.remove(old)
        #expect(table[new] == 2)
        #expect(table.count == 1)
        // Had the place been free twice, two would share it now.
        let other = try insert(3, into: &table)
        #expect(other.slot != new.slot)
        #expect(table[new] == 2)
        #expect(table[other] == 3)
    }

    @Test("the token that a free place will give next takes nothing out")
    func removingByNextToken() throws {
        var table = SlotTable<Int>()
        let first = try insert(1, into: &table)
        table.remove(first)
        table.remove(Poller.Token(slot: first.slot, generation: first.generation + 1))
        #expect(table.count == 0)
        let one = try insert(1, into: &table)
        let two = try insert(2, into: &table)
        #expect(one.slot != two.slot)
        #expect(table[one] == 1)
        #expect(table[two] == 2)
    }

    @Test(
        "a token that it never gave is nobody's",
        arguments: [
            0, 1, .max, 0xFFFF_FFFF, 0x1_0000_0001, 0x1_FFFF_FFFF, 0x2_0000_0000,
        ] as [UInt64])
    func strangers(bits: UInt64) throws {
        var table = SlotTable<Int>()
        let stranger = Poller.Token(bits: bits)
        #expect(table[stranger] == nil)
        table.remove(stranger)
        let token = try insert(7, into: &table)
        #expect(token != stranger)
        #expect(table[stranger] == nil)
        table.remove(stranger)
        #expect(table[token] == 7)
        #expect(table.count == 1)
    }

    @Test("gives no place to the number that is nobody's, and begins every place with generation 1")
    func firstTokens() throws {
        var table = SlotTable<Int>()
        for number in 0..<100 {
            let token = try insert(number, into: &table)
            #expect(token == Poller.Token(slot: UInt32(number), generation: 1))
        }
    }

    @Test("the last generation is followed by another without a trap")
    func lastGeneration() throws {
        var table = SlotTable<Int>()
        table.remove(try insert(1, into: &table))
        table.slots[0].generation = .max
        let last = try insert(2, into: &table)
        #expect(last.generation == .max)
        table.remove(last)
        let next = try insert(3, into: &table)
        #expect(next != last)
        #expect(table[last] == nil)
        #expect(table[next] == 3)
    }

    @Test("gives its elements in the order of their places")
    func elements() throws {
        var table = SlotTable<Int>()
        let tokens = try (0..<5).map { try insert($0, into: &table) }
        table.remove(tokens[1])
        table.remove(tokens[3])
        #expect(table.elements == [0, 2, 4])
        _ = table.insert(9)
        #expect(table.elements.sorted() == [0, 2, 4, 9])
        #expect(table.count == 4)
    }

    @Test("holds optional elements like others")
    func optionalElements() throws {
        var table = SlotTable<Int?>()
        let token = try insert(nil, into: &table)
        #expect(table[token] == .some(.none))
        #expect(table.count == 1)
        table.remove(token)
        #expect(table.count == 0)
        #expect(table[token] == nil)
    }

    @Test("lets go of what is taken out")
    func lettingGo() throws {
        let living = Tracked.Living()
        var table = SlotTable<Tracked>()
        let token = try insert(Tracked(living), into: &table)
        _ = table.insert(Tracked(living))
        #expect(living.count == 2)
        table.remove(token)
        #expect(living.count == 1)
        table = SlotTable()
        #expect(living.count == 0)
    }

    @Test("needs no more places than were in use at once")
    func placesAreUsedAgain() throws {
        var table = SlotTable<Int>()
        var tokens: [Poller.Token] = []
        for number in 0..<5000 {
            tokens.append(try insert(number, into: &table))
            if tokens.count > 10 { table.remove(tokens.removeFirst()) }
        }
        #expect(table.slots.count == 11)
        #expect(table.count == 10)
    }

    @Test("does what a dictionary of all tokens does, whatever is put in and taken out", arguments: 0..<8)
    func model(seed: Int) throws {
        var random = Randomness(seed: seed)
        var table = SlotTable<Int>()
        var model: [UInt64: Int] = [:]
        var all: [Poller.Token] = []
        for number in 0..<4000 {
            switch Int.random(in: 0..<8, using: &random) {
            case 0...3:
                let token = try insert(number, into: &table)
                if model[token.bits] != nil { Issue.record("\(token) was given twice") }
                if token.slot == .max { Issue.record("\(token) is nobody's") }
                model[token.bits] = number
                all.append(token)
            case 4...6:
                // Any token that was ever given, most of them old.
                guard let token = all.randomElement(using: &random) else { continue }
                table.remove(token)
                model[token.bits] = nil
            default:
                guard let live = model.keys.min() else { continue }
                table.remove(Poller.Token(bits: live))
                model[live] = nil
            }
            if table.count != model.count { Issue.record("\(table.count), not \(model.count)") }
            guard let token = all.randomElement(using: &random) else { continue }
            if table[token] != model[token.bits] { Issue.record("\(token) answers wrongly") }
        }
        #expect(Set(all.map(\.bits)).count == all.count)
        for token in all where table[token] != model[token.bits] { Issue.record("\(token) answers wrongly") }
        #expect(table.elements.sorted() == model.values.sorted())
    }
}
