import Beam
import CErlNif
import Streams

/// Erlang terms of CBOR: text and bytes as binaries, null and undefined as `nil`, what is no number as the atoms that
/// stand for it elsewhere.
struct CborTermReader {
    let env: EnvPointer?
    /// The binary that is read: larger parts of it are given out without a copy.
    private let binary: Term
    private let bytes: UnsafeRawBufferPointer
    private var reader: CborReader
    private var left: Int

    /// From how many bytes on a part is no copy: below, the term of one costs as much.
    private static let sharedSize = 64

    /// `bytes` are those of `binary`, which lives as long as its environment.
    init(env: EnvPointer?, _ binary: Term, _ bytes: UnsafeRawBufferPointer, items: Int) {
        self.env = env
        self.binary = binary
        self.bytes = bytes
        reader = CborReader(bytes)
        left = items
    }

    /// Why it goes no further.
    enum Stop: Error {
        case malformed(CborError)
        case outOfItems
    }

    /// What is left of the binary.
    var rest: Term { enif_make_sub_binary(env, binary, reader.position, bytes.count - reader.position) }

    /// The next term.
    mutating func term(depth: Int = 0) throws(Stop) -> Term {
        guard let term = try term(orEnd: depth) else { throw malformed("an end of what has not begun") }
        return term
    }

    private func malformed(_ text: String) -> Stop { .malformed(CborError(text)) }

    private mutating func next() throws(Stop) -> CborReader.Item {
        do throws(CborError) { return try reader.next() } catch { throw .malformed(error) }
    }

    /// Nil where something of unknown length ends.
    private mutating func term(orEnd depth: Int) throws(Stop) -> Term? {
        guard depth < CborTermWriter.maximumDepth else {
            throw malformed("the CBOR is nested more than \(CborTermWriter.maximumDepth) levels deep")
        }
        left -= 1
        guard left >= 0 else { throw .outOfItems }
        switch try next() {
        case .unsigned(let number): return enif_make_ulong(env, UInt(truncatingIfNeeded: number))
        case .negative(let number): return try negative(number)
        case .bytes(let range): return try part(range)
        case .text(let range): return try text(range)
        case .piecesOfBytes:
            return try pieces { item in if case .bytes(let range) = item { range } else { nil } }
        case .piecesOfText:
            return try pieces { item in if case .text(let range) = item { range } else { nil } }
        case .array(let count): return makeList(env, try terms(count, depth))
        case .map(let count): return try map(count, depth)
        case .tag(let tag): return try tagged(tag, depth)
        case .simple(let value): return try simple(value)
        case .float(let value): return float(value)
        case .end: return nil
        }
    }

    private func negative(_ number: UInt64) throws(Stop) -> Term {
        if let number = Int(exactly: number) { return enif_make_long(env, -1 - number) }
        return try bigInteger(isNegative: true, withUnsafeBytes(of: number.bigEndian) { Array($0) })
    }

    private func bigInteger(isNegative: Bool, _ content: [UInt8]) throws(Stop) -> Term {
        let term = CborBigNumber.littleEndian(isNegative: isNegative, of: content).withUnsafeBytes {
            makeBigInteger(env, isNegative: isNegative, magnitude: $0)
        }
        guard let term else {
            throw malformed("an integer of \(content.count) bytes is too large for Erlang")
        }
        return term
    }

    private func part(_ range: Range<Int>) throws(Stop) -> Term {
        guard range.count < CborTermReader.sharedSize else {
            return enif_make_sub_binary(env, binary, range.lowerBound, range.count)
        }
        guard let term = makeBinary(env, UnsafeRawBufferPointer(rebasing: bytes[range])) else {
            throw noMemory()
        }
        return term
    }

    private func noMemory() -> Stop { malformed("there is no memory for what the CBOR holds") }

    private func text(_ range: Range<Int>) throws(Stop) -> Term {
        try checkText(range)
        return try part(range)
    }

    private func checkText(_ range: Range<Int>) throws(Stop) {
        guard String(validating: bytes[range], as: UTF8.self) != nil else {
            throw malformed("a text at byte \(range.lowerBound) is no UTF-8")
        }
    }

    private mutating func pieces(_ range: (CborReader.Item) -> Range<Int>?) throws(Stop) -> Term {
        var whole: [UInt8] = []
        while true {
            left -= 1
            guard left >= 0 else { throw .outOfItems }
            let item = try next()
            if item == .end { break }
            guard let piece = range(item) else { throw malformed("a piece of another kind than the rest") }
            if case .text = item { try checkText(piece) }
            whole.append(contentsOf: bytes[piece])
        }
        guard let term = whole.withUnsafeBytes({ makeBinary(env, $0) }) else { throw noMemory() }
        return term
    }

    /// So many terms, or all up to the end.
    private mutating func terms(_ count: Int?, _ depth: Int) throws(Stop) -> [Term] {
        var terms: [Term] = []
        guard let count else {
            while let term = try term(orEnd: depth + 1) { terms.append(term) }
            return terms
        }
        // Not reserved: what is announced may never come.
        for _ in 0..<count { terms.append(try term(depth: depth + 1)) }
        return terms
    }

    private mutating func map(_ count: Int?, _ depth: Int) throws(Stop) -> Term {
        var keys: [Term] = []
        var values: [Term] = []
        while keys.count != count {
            guard let key = try term(orEnd: depth + 1) else {
                guard count == nil else { throw malformed("an end of what has not begun") }
                break
            }
            keys.append(key)
            values.append(try term(depth: depth + 1))
        }
        // On a scheduler, normal or dirty, this is safe for maps of any size: see `LargeMap`.
        var map: Term = 0
        guard enif_make_map_from_arrays(env, &keys, &values, keys.count, &map) != 0 else {
            throw malformed("a map has a key twice")
        }
        return map
    }

    /// Of tags only those of large integers mean something to us: others say more about a value, which stands alone as
    /// well.
    private mutating func tagged(_ tag: UInt64, _ depth: Int) throws(Stop) -> Term {
        guard tag == 2 || tag == 3 else { return try term(depth: depth + 1) }
        guard case .bytes(let range) = try next() else { throw malformed("a large integer that is no bytes") }
        return try bigInteger(isNegative: tag == 3, Array(bytes[range]))
    }

    private func simple(_ value: UInt8) throws(Stop) -> Term {
        switch value {
        case 20: return atoms.false
        case 21: return atoms.true
        case 22, 23: return atoms.nil
        default: throw malformed("the simple value \(value) has no form in Erlang")
        }
    }

    private func float(_ value: Double) -> Term {
        if value.isNaN { return atoms.nan }
        if value.isInfinite { return value > 0 ? atoms.infinity : atoms.negInfinity }
        return enif_make_double(env, value)
    }
}
