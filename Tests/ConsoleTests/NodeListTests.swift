import Testing

@testable import Console

/// Addresses as people paste them.
@Suite("Addresses")
struct NodeListTests {
    @Test("what people paste is understood")
    func understood() throws {
        let cases: [(String, [String])] = [
            ("127.0.0.1:7401", ["127.0.0.1:7401"]),
            ("a:1,b:2,c:3", ["a:1", "b:2", "c:3"]),
            (" a:1 , b:2 ", ["a:1", "b:2"]),
            ("a:1;b:2", ["a:1", "b:2"]),
            ("a:1 b:2\n\tc:3", ["a:1", "b:2", "c:3"]),
            ("a:1,b:2,", ["a:1", "b:2"]),
            ("http://a:1", ["a:1"]), ("https://a:1/", ["a:1"]), ("tcp://a:1", ["a:1"]), ("banyan://a:1", ["a:1"]),
            ("HTTP://a:1,http://b:2/", ["a:1", "b:2"]),
            ("a:1/", ["a:1"]),
            ("a", ["a:7400"]), ("a.example.com", ["a.example.com:7400"]), ("10.0.0.1", ["10.0.0.1:7400"]),
            ("http://a/", ["a:7400"]),
            ("[::1]:7401", ["[::1]:7401"]), ("[::1]", ["[::1]:7400"]),
            ("http://[fe80::1%eth0]:1/", ["[fe80::1%eth0]:1"]),
            ("a:07401", ["a:7401"]), ("a:1,a:1", ["a:1"]), ("node_1:7400", ["node_1:7400"]),
            ("\"a:1\",'b:2'", ["a:1", "b:2"]),
        ]
        for (text, addresses) in cases {
            #expect(try NodeList.parse(text).addresses == addresses, "\(text)")
        }
    }

    @Test("what can't be meant is refused with the piece that is wrong, and the mend")
    func refused() {
        let cases: [(text: String, piece: String, mend: String)] = [
            ("a:1,b:x", "'b:x'", "port"), ("a:0", "'a:0'", "port"), ("a:65536", "'a:65536'", "port"),
            ("a:+1", "'a:+1'", "port"), ("a:-1", "'a:-1'", "port"), ("a:", "'a:'", "port"),
            (":7400", "':7400'", "host"), ("1=a:1,2=b:2", "'1=a:1'", "a:1"), ("a:1,::1", "'::1'", "[::1]:7400"),
            ("fe80::1:7400", "'fe80::1:7400'", "brackets"), ("[::1:7400", "'[::1:7400'", "bracket"),
            ("[a]:1", "'[a]:1'", "IPv6"), ("a:1/path", "'a:1/path'", "path"), ("ftp://a:1", "'ftp://a:1'", "ftp"),
            ("user@a:1", "'user@a:1'", "user"), ("a,b?c", "'b?c'", "host"), ("", "''", "host"),
            (" , ", "' , '", "host"),
            ("a:1:2", "'a:1:2'", "port"),
        ]
        for (text, piece, mend) in cases {
            do {
                let list = try NodeList.parse(text)
                Issue.record("'\(text)' was taken for \(list.addresses)")
            } catch {
                #expect(error.message.contains(piece), "'\(text)': \(error.message)")
                #expect(error.message.contains(mend), "'\(text)': \(error.message)")
            }
        }
    }
}
