import Foundation
import NIOCore
import WireProtocol

/// A socket that says what it is told, in the pieces in which it is told, and reads only when it is asked to. Its calls block,
/// for some seconds at most.
final class RawConnection {
    private let descriptor: Int32
    private var received = ByteBuffer()
    /// What came last.
    private var room = [UInt8](repeating: 0, count: 4096)

    /// - Parameter receiveBytes: what the system takes in for a reader who does not read; nil: as it likes.
    init(to port: Int, receiveBytes: Int32? = nil) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        if var bytes = receiveBytes {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, socklen_t(MemoryLayout<Int32>.size))
        }
        limitCalls()
        let isConnected = withLoopback(port) { connect(descriptor, $0, $1) == 0 }
        guard isConnected else {
            throw TestCluster.Failure(description: "no connection to \(port): \(String(cString: strerror(errno)))")
        }
    }

    fileprivate init(accepted descriptor: Int32) {
        self.descriptor = descriptor
        limitCalls()
    }

    deinit { close(descriptor) }

    /// Lets this process have as many as the system allows it.
    static func raiseLimit() {
        var limit = rlimit()
        let files = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        getrlimit(files, &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(files, &limit)
    }

    private func limitCalls() {
        var limit = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    /// False when the other side has closed, or takes no more in.
    @discardableResult
    func say(_ bytes: some Collection<UInt8>, waits: Bool = true) -> Bool {
        let flags = Int32(MSG_NOSIGNAL) | (waits ? 0 : Int32(MSG_DONTWAIT))
        let bytes = Array(bytes)
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes { all in
                all.baseAddress.map { send(descriptor, $0 + sent, all.count - sent, flags) } ?? 0
            }
            if count <= 0 { return false }
            sent += count
        }
        return true
    }

    /// The next frame; nil when none comes within some seconds, or the other side has closed.
    func frame(waits: Bool = true) throws -> Frame? {
        while true {
            if let frame = try received.readFrame(bodyBytesMax: Frame.bodyBytesMax) { return frame }
            guard let count = receive(upTo: room.count, waits: waits), count > 0 else { return nil }
            received.writeBytes(room[..<count])
        }
    }

    /// Takes in what has come, and throws it away.
    func drain(upTo limit: Int) { _ = receive(upTo: min(limit, room.count), waits: false) }

    /// - Returns: how many bytes came into `room`; nil: nothing came; 0: the other side has closed.
    private func receive(upTo limit: Int, waits: Bool) -> Int? {
        let count = room.withUnsafeMutableBytes {
            recv(descriptor, $0.baseAddress, limit, waits ? 0 : Int32(MSG_DONTWAIT))
        }
        if count < 0 { return errno == EAGAIN || errno == EINTR ? nil : 0 }
        return count
    }

    /// Says that nothing more comes, and waits until the other side has read all that came, and closed.
    func finish() {
        shutdown(descriptor, Int32(SHUT_WR))
        while let count = receive(upTo: room.count, waits: true), count > 0 {}
    }

    /// Whether the other side has closed: only what was not read before can hide it.
    var isClosed: Bool {
        while let count = receive(upTo: room.count, waits: false) {
            if count == 0 { return true }
        }
        return false
    }
}

/// Listens on a port and answers nobody by itself.
final class RawListener {
    private let descriptor: Int32

    init(on port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var on: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        let isBound = withLoopback(port) { bind(descriptor, $0, $1) == 0 }
        guard isBound, listen(descriptor, 4096) == 0 else {
            throw TestCluster.Failure(description: "can't listen on \(port): \(String(cString: strerror(errno)))")
        }
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    }

    deinit { close(descriptor) }

    /// Who has connected meanwhile; nil when there is nobody.
    func accept() -> RawConnection? {
        let accepted = Glibc.accept(descriptor, nil, nil)
        return accepted < 0 ? nil : RawConnection(accepted: accepted)
    }
}

/// `body` with the address of a port on loopback.
private func withLoopback<Result>(
    _ port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
) -> Result {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = UInt16(port).bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
}
