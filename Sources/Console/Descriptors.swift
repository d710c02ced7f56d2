import Glibc

/// The files that a process begins with, and how many it may have.
package enum Descriptors {
    /// Puts /dev/null in the place of a standard descriptor that is closed. Else the first thing that is opened gets its
    /// number, and what is meant for the terminal is written into that: an event loop's own descriptor, or a file.
    static func fillStandard() {
        for descriptor in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] where fcntl(descriptor, F_GETFD) < 0 {
            // The lowest that is free is this one: those below it are open.
            let opened = open("/dev/null", O_RDWR)
            if opened >= 0, opened != descriptor { close(opened) }
        }
    }

    /// Allows as many as the system does: the lower limit is there for programs that can't count beyond 1,024.
    package static func raiseLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0, limit.rlim_cur < limit.rlim_max
        else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// How many files this process may have open at once.
    package static var max: Int {
        var limit = rlimit()
        let isKnown = getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
        return isKnown ? Int(clamping: limit.rlim_cur) : .max
    }

    /// - Parameter count: how many files the program has open at once, at the most.
    /// - Throws: the failure when it may not; event loops that can't be made would end it without a word.
    package static func require(_ count: Int) throws {
        guard max < count else { return }
        throw CommandFailure("this process may open \(max) files at once, and needs \(count): see 'ulimit -n'")
    }
}
