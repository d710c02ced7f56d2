import BanyanClient
import Foundation
import Testing

/// What the command line makes of names, modes, links, pipes and signals, with one member for many cases.
@Suite("File commands", .serialized)
struct FileCommandTests {
    /// Runs a script of bash in the cluster's folder: `banyan` is the program, and knows the member.
    private func script(_ text: String, _ cluster: TestCluster) async throws -> String {
        let file = cluster.folder.appendingPathComponent("script-\(UUID().uuidString)")
        let program = try TestCluster.program("banyan").path
        let head = """
            cd '\(cluster.folder.path)' && exec 2>&1
            export BANYAN_NODES=\(cluster.addresses[0]) LC_ALL=C.UTF-8
            banyan() { '\(program)' "$@"; }

            """
        try Data((head + text).utf8).write(to: file)
        return try await blocking {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/bin/bash")
            process.arguments = [file.path]
            process.standardInput = FileHandle.nullDevice
            let output = Pipe()
            process.standardOutput = output
            try process.run()
            let bytes = output.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return String(decoding: bytes, as: UTF8.self)
        }
    }

    private func expect(
        _ text: String, _ expected: String, _ cluster: TestCluster, location: SourceLocation = #_sourceLocation
    ) async throws {
        let output = try await script(text, cluster)
        #expect(Array(output.utf8) == Array((expected + "\n").utf8), "\(output)", sourceLocation: location)
    }

    @Test("put and get keep modes as a user of files expects, and take no file for standard input")
    func modes() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let mode = "mode() { banyan --json stat $1 | sed -n 's/.*\"mode\" : \"\\(.*\\)\".*/\\1/p'; }\n"
        try await expect(
            mode + """
                umask 077; echo secret >k; banyan put /k k >/dev/null; mode /k
                echo new | banyan put /k - >/dev/null; mode /k; banyan get /k
                umask 027; banyan put /n - </dev/null >/dev/null; mode /n; banyan mkdir /d >/dev/null; mode /d
                chmod 4755 k; banyan put /s k >/dev/null; mode /s
                umask 077; banyan get /s -o s; stat -c %a s; chmod 4751 s; umask 022; banyan get /k -o s; stat -c %a s
                """, "600\n600\nnew\n640\n750\n755\n700\n751", cluster)
        // Without the content.
        try await expect(
            mode + """
                echo x >c; chmod 640 c; banyan put /c c >/dev/null
                until banyan chmod 600 /c >/dev/null 2>&1; do :; done; mode /c
                for m in u+x go=r a-w,o+w +x 7777 o=; do banyan chmod $m /c >/dev/null; mode /c; done
                banyan chmod 1777 /c / >/dev/null 2>&1; echo $?; mode /c; banyan chmod 1777 /d >/dev/null; mode /d
                banyan chmod 999 /c 2>/dev/null; echo $?; banyan chmod u+s /c 2>/dev/null; echo $?
                banyan chmod 644 /none 2>/dev/null; echo $?; banyan chmod --if-revision 1 600 /c 2>/dev/null; echo $?
                banyan get /c
                """,
            "600\n700\n744\n546\n557\n777\n770\n1\n777\n1777\n2\n2\n3\n4\nx", cluster)
        try await expect(
            """
            when() { banyan stat $1 | sed -n 's/^modified *//p'; }
            banyan touch -d 2026-03-01T12:30:00.25+01:00 /c /made >/dev/null; when /c; when /made; banyan get /c
            banyan touch -d @-1.5 /c >/dev/null; when /c; banyan touch -c /none; echo $?; banyan stat /none 2>/dev/null; echo $?
            banyan touch -d yesterday /c 2>/dev/null; echo $?; banyan touch -d @9999999999999 /c 2>/dev/null; echo $?
            banyan touch /c >/dev/null; test $(when /c | cut -c1-4) -ge 2026; echo $?
            """,
            "2026-03-01T11:30:00.250000000Z\n2026-03-01T11:30:00.250000000Z\nx\n1969-12-31T23:59:59.500000000Z\n0\n3\n2\n2\n0",
            cluster)
        // The loop's list is the loop's.
        try await expect(
            """
            echo good >f; banyan put /conf f >/dev/null; unset F
            for i in 1 2 3; do echo line; done | while read l; do echo $l; banyan put /conf $F >/dev/null 2>&1; echo $?; done
            banyan get /conf
            """, "line\n2\nline\n2\nline\n2\ngood", cluster)
    }

    @Test("names are bytes from end to end")
    func names() async throws {
        let cluster = try await TestCluster.start(members: 1)
        try await expect(
            """
            mkdir u; echo 1 >u/$'caf\\xc3\\xa9'; echo 2 >u/$'cafe\\xcc\\x81'; echo 3 >u/$'\\xcc\\x81x'
            for i in 1 2; do banyan mirror push u /u | sed 's/,.*//'; echo $?; done
            banyan ls $'/u/\\xcc\\x81x'; banyan get $'/u/\\xcc\\x81x'
            mkdir o; banyan mirror pull /u o >/dev/null; diff -r u o && echo same
            echo 4 >$'f\\xff'; banyan put /f $'f\\xff' >/dev/null; banyan get /f -o $'g\\xff'; cat $'g\\xff'
            banyan stat $'/f\\xff' >/dev/null 2>&1; echo $?
            """,
            "3 files copied (6 bytes)\n0\n0 files copied (0 bytes)\n0\n/u/\u{301}x\n3\nsame\n4\n2", cluster)
        let client = cluster.client()
        let listed = try await client.list("/u").entries.map(\.nameBytes)
        #expect(listed == [Array("cafe\u{301}".utf8), Array("caf\u{E9}".utf8), Array("\u{301}x".utf8)])
        await client.close()
    }

    @Test("one slash at the end says a directory, a file is listed, and mv moves into what is written with a slash")
    func slashes() async throws {
        let cluster = try await TestCluster.start(members: 1)
        try await expect(
            """
            echo 1 | banyan put /a/f - >/dev/null; banyan mkdir /b/ >/dev/null; banyan ls /a/f; banyan ls -R /a/f
            banyan ls -l /a/f | awk '{print $1, $NF}'; banyan mv /a/f /b/ | sed 's/ at.*//'; banyan ls -R /
            banyan mv /a/ /new/ | sed 's/ at.*//'; banyan mv /new/ /b/ | sed 's/ at.*//'; banyan mv /b/f / | sed 's/ at.*//'
            banyan rm -r /b/ | sed 's/ at.*//'; banyan ls
            """,
            "/a/f\n/a/f\n- /a/f\n/b/f is\n/a/\n/b/\n/b/f\n/new is\n/b/new is\n/f is\n/b/ was removed\nf", cluster)
    }

    @Test("paths that a move made too long are named, the rest is listed and copied, and a move back mends it")
    func longPaths() async throws {
        let cluster = try await TestCluster.start(members: 1)
        try await expect(
            """
            L=$(printf 'x%.0s' {1..250}); p=; for i in {1..16}; do p=$p/$L; done
            banyan mkdir -p /w$p >/dev/null; echo 1 | banyan put /z - >/dev/null; echo 2 | banyan put /w$p/f - >/dev/null
            banyan mv /w /$L >/dev/null
            banyan ls -R / >list 2>errors; echo $?; grep -x /z list; wc -l <errors; grep -c 'out of reach' errors
            banyan mirror pull / o >/dev/null 2>&1; echo $?; cat o/z
            banyan mv /$L /w >/dev/null; banyan get /w$p/f; banyan ls -R / >/dev/null; echo $?
            """, "1\n/z\n1\n1\n1\n1\n2\n0", cluster)
    }

    @Test("pipes that do not wait are read and written whole")
    func pipes() async throws {
        let cluster = try await TestCluster.start(members: 1)
        try await expect(
            #"""
            cat >unblocked.py <<'END'
            import array, fcntl, os, subprocess, sys, termios
            b = sys.argv[1]
            def wait_until(pipe, holds):
                n = array.array("i", [-1])
                while not holds(n[0]): fcntl.ioctl(pipe, termios.FIONREAD, n)
            r, w = os.pipe(); os.set_blocking(r, False)
            put = subprocess.Popen([b, "put", "/k", "-"], stdin=r, stdout=subprocess.DEVNULL)
            data = b"x" * 1000000
            # Once these are read, the next read finds nothing.
            os.write(w, data[:10]); wait_until(w, lambda n: n == 0); os.close(r)
            rest = data[10:]
            while rest: rest = rest[os.write(w, rest):]
            os.close(w); print(put.wait())
            r, w = os.pipe(); os.set_blocking(w, False)
            get = subprocess.Popen([b, "get", "/k"], stdout=w); os.close(w)
            # The pipe is full, and the next write finds no room.
            wait_until(r, lambda n: n > 60000); size = 0
            while True:
                part = os.read(r, 65536)
                if not part: break
                size += len(part)
            print(size, get.wait())
            END
            python3 unblocked.py '\#(try TestCluster.program("banyan").path)'
            """#, "0\n1000000 0", cluster)
    }

    @Test("a pull that a signal ends leaves no temporary file, and what a killed one left goes with the next")
    func signals() async throws {
        let cluster = try await TestCluster.start(members: 1)
        // The member stands still while the files are under way.
        let member = try cluster.processID(1)
        try await expect(
            """
            mkdir s; for i in {1..100}; do head -c 100000 /dev/zero >s/$i; done; banyan mirror push s /s >/dev/null
            temporaries() { ls -A o 2>/dev/null | grep -c '^\\.banyan-tmp-'; }
            for signal in TERM HUP KILL; do
                rm -rf o; '\(try TestCluster.program("banyan").path)' mirror pull /s o >/dev/null 2>&1 & p=$!
                until [ $(temporaries) -gt 0 ] || ! kill -0 $p 2>/dev/null; do :; done; kill -STOP \(member)
                { kill -$signal $p; wait $p; } 2>/dev/null; kill -CONT \(member)
                if [ $signal = KILL ]; then echo $signal; else echo $signal $(temporaries); fi
            done
            banyan mirror pull /s o >/dev/null; echo $?; temporaries; diff -r s o && echo same
            """, "TERM 0\nHUP 0\nKILL\n0\n0\nsame", cluster)
    }

    @Test("an error is one line, whatever its name holds, and what a pipe gets is the name itself")
    func controlCharacters() async throws {
        let cluster = try await TestCluster.start(members: 1)
        try await expect(
            """
            echo 1 | banyan put $'/a\\nb' - >/dev/null; banyan get $'/c\\nd' >/dev/null; banyan ls / | cat
            """, "banyan: /c\\nd: no such file or directory\na\nb", cluster)
        let program = try TestCluster.program("banyan").path
        try await expect(
            """
            t() { python3 -c 'import pty, sys; pty.spawn(sys.argv[1:])' "$@" </dev/null | tr -d '\\r'; }
            t '\(program)' ls /; t '\(program)' get $'/x\\x1by'
            """, "a\\nb\nbanyan: /x\\u{1b}y: no such file or directory", cluster)
    }
}
