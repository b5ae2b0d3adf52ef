import Testing

@testable import Streams

private typealias Item = CborReader.Item

/// The items of some bytes.
private func items(_ bytes: [UInt8]) throws -> [Item] {
    try bytes.withUnsafeBytes { bytes in
        var reader = CborReader(bytes)
        var items: [Item] = []
        while reader.position < bytes.count { items.append(try reader.next()) }
        return items
    }
}

private func bytes(_ hex: String) -> [UInt8] {
    let digits = hex.filter { $0 != " " }.map { UInt8($0.hexDigitValue ?? 0) }
    return stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

private func written(_ write: (inout CborWriter) -> Void) -> [UInt8] {
    var writer = CborWriter()
    write(&writer)
    return writer.bytes
}

/// RFC 8949, appendix A.
@Suite("CBOR")
struct CborTests {
    @Test(
        "reads the numbers of the standard's examples",
        arguments: [
            ("00", Item.unsigned(0)), ("0a", .unsigned(10)), ("17", .unsigned(23)), ("1818", .unsigned(24)),
            ("1864", .unsigned(100)), ("1903e8", .unsigned(1000)), ("1a000f4240", .unsigned(1_000_000)),
            ("1b000000e8d4a51000", .unsigned(1_000_000_000_000)), ("1bffffffffffffffff", .unsigned(.max)),
            ("20", .negative(0)), ("29", .negative(9)), ("3863", .negative(99)), ("3903e7", .negative(999)),
            ("3bffffffffffffffff", .negative(.max)), ("f90000", .float(0)), ("f98000", .float(-0.0)),
            ("f93c00", .float(1)), ("fb3ff199999999999a", .float(1.1)), ("f93e00", .float(1.5)),
            ("f97bff", .float(65504)), ("fa47c35000", .float(100_000)),
            ("fa7f7fffff", .float(3.4028234663852886e38)),
            ("fb7e37e43c8800759c", .float(1e300)), ("f90001", .float(5.960464477539063e-8)),
            ("f90400", .float(0.00006103515625)), ("f9c400", .float(-4)),
            ("fbc010666666666666", .float(-4.1)),
            ("f97c00", .float(.infinity)), ("f9fc00", .float(-.infinity)), ("fa7f800000", .float(.infinity)),
            ("f4", .simple(20)), ("f5", .simple(21)), ("f6", .simple(22)), ("f7", .simple(23)),
            ("f0", .simple(16)),
            ("f8ff", .simple(255)), ("c1", .tag(1)), ("d818", .tag(24)),
        ])
    func examples(hex: String, item: CborReader.Item) throws { #expect(try items(bytes(hex)) == [item]) }

    @Test(
        "reads what is no number in all widths",
        arguments: ["f97e00", "fa7fc00000", "fb7ff8000000000000", "f9fe00"])
    func notANumber(hex: String) throws {
        guard case .float(let value) = try items(bytes(hex)).first else {
            Issue.record("no float")
            return
        }
        #expect(value.isNaN)
    }

    @Test("reads what contains others before them, in both forms of length")
    func containers() throws {
        #expect(try items(bytes("83010203")) == [.array(3), .unsigned(1), .unsigned(2), .unsigned(3)])
        #expect(try items(bytes("a10203")) == [.map(1), .unsigned(2), .unsigned(3)])
        #expect(try items(bytes("9f01ff")) == [.array(nil), .unsigned(1), .end])
        #expect(try items(bytes("bf0102ff")) == [.map(nil), .unsigned(1), .unsigned(2), .end])
        #expect(
            try items(bytes("5f42010243030405ff")) == [.piecesOfBytes, .bytes(2..<4), .bytes(5..<8), .end])
        #expect(try items(bytes("7f6161ff")) == [.piecesOfText, .text(2..<3), .end])
        #expect(try items(bytes("4401020304")) == [.bytes(1..<5)])
        #expect(try items(bytes("6449455446")) == [.text(1..<5)])
    }

    @Test(
        "refuses what has no meaning",
        arguments: [
            "1c", "1d", "1e", "1f", "3f", "df", "fc", "fd", "fe", "f800", "f818", "f81f", "5c", "7d", "9e",
        ])
    func malformed(hex: String) { #expect(throws: CborError.self) { try items(bytes(hex)) } }

    @Test("refuses lengths that are not there, however large they are")
    func lies() {
        for hex in [
            "18", "1903", "1b00000000000000", "41", "5bffffffffffffffff", "7b7fffffffffffffff",
            "9bffffffffffffffff",
            "9a00000002ff", "bb8000000000000000", "a2010203", "fb00", "f9", "fa000000",
        ] {
            #expect(throws: CborError.self, "\(hex)") { try items(bytes(hex)) }
        }
    }

    @Test("never reads beyond the end: every beginning of something is refused or is whole")
    func truncated() throws {
        let whole = bytes("a461611903e8616283f5f6fb3ff199999999999a6163581a") + Array(repeating: 7, count: 26)
        _ = try items(whole + bytes("616460"))
        var random = SystemRandomNumberGenerator()
        for length in 0..<whole.count { _ = try? items(Array(whole.prefix(length))) }
        for _ in 0..<20_000 {
            _ = try? items(
                (0..<Int.random(in: 0..<40)).map { _ in UInt8.random(in: 0...255, using: &random) })
        }
    }

    @Test("what the fuzzer has found: items, one after the other, until something is none")
    func corpus() {
        let inputs = PacketVector.inputs(of: "Fuzz/cbor-items.txt")
        #expect(inputs.count > 50)
        for input in inputs {
            input.withUnsafeBytes { bytes in
                var reader = CborReader(bytes)
                while reader.position < bytes.count {
                    let before = reader.position
                    guard (try? reader.next()) != nil else { return }
                    #expect(reader.position > before && reader.position <= bytes.count)
                }
            }
        }
    }

    @Test("writes numbers as short as they can be, and reads them again")
    func numbers() throws {
        let edges = [0, 1, 23, 24, 255, 256, 65535, 65536, 4_294_967_295, 4_294_967_296, Int.max]
        for value in edges {
            let plain = written { $0.integer(value) }
            #expect(try items(plain) == [.unsigned(UInt64(value))])
            #expect(try items(written { $0.integer(-1 - value) }) == [.negative(UInt64(value))])
            #expect(
                plain.count
                    == (value < 24 ? 1 : value < 256 ? 2 : value < 65536 ? 3 : value < 1 << 32 ? 5 : 9))
        }
        #expect(written { $0.integer(Int.min) } == bytes("3b7fffffffffffffff"))
        #expect(written { $0.unsigned(.max) } == bytes("1bffffffffffffffff"))
        #expect(written { $0.negative(.max) } == bytes("3bffffffffffffffff"))
        #expect(
            written { $0.bigInteger(isNegative: true, magnitude: [1] + Array(repeating: 0, count: 8)) }
                == bytes("c349010000000000000000"))
        #expect(written { $0.float(1.1) } == bytes("fb3ff199999999999a"))
    }

    @Test("writes everything else")
    func others() {
        let bytes = written { writer in
            writer.map(1)
            Array("a".utf8).withUnsafeBytes { writer.text($0) }
            writer.array(4)
            writer.bool(true)
            writer.bool(false)
            writer.null()
            [1, 2].withUnsafeBufferPointer { (numbers: UnsafeBufferPointer<UInt8>) in
                writer.bytes(UnsafeRawBufferPointer(numbers))
            }
        }
        #expect(bytes == StreamsTests.bytes("a1616184f5f4f6420102"))
    }
}
