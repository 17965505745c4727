//! Every limit of the edge, with its unit and why this number. Nothing in this crate waits or grows without one of these.

use std::time::Duration;

/// Longest request head, in bytes; more is answered with 431. Eight times nginx's default: cookies and tokens fit.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of one head; more is answered with 431. httparse needs a bound, and hyper's default is the same.
pub(crate) const HEADERS_MAX: usize = 100;
/// Bytes read from a socket at once, into a buffer that a worker's connections share: a usual answer with a body of
/// 64 KiB in one piece.
pub(crate) const READ_BYTES: usize = 128 * 1024;
/// The same when a worker keeps more than [`KEPT_BYTES_SOFT_MAX`]: as much as nginx reads at once.
pub(crate) const READ_BYTES_CROWDED: usize = 4 * 1024;
/// Bytes that a worker keeps for peers that do not take them, before it reads less at once. Ten thousand slow readers
/// then cost at most 40 MB more.
pub(crate) const KEPT_BYTES_SOFT_MAX: usize = 64 * 1024 * 1024;
/// Content up to this many bytes is copied behind its head: cheaper than telling the kernel of two pieces.
pub(crate) const JOINED_BYTES_MAX: usize = 4 * 1024;
/// Bytes taken from a client while its last request is still being answered: a few pipelined requests.
pub(crate) const PIPELINED_BYTES_MAX: usize = 16 * 1024;
/// Bytes and time that a client may go on sending after it was refused, and its longest pause, so that it sees the answer
/// rather than a reset (nginx: 30 s and 5 s).
pub(crate) const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
pub(crate) const LINGER_TIME_MAX: Duration = Duration::from_secs(30);
pub(crate) const LINGER_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Largest buffer that an idle connection keeps, in bytes: most heads fit.
pub(crate) const IDLE_BUFFER_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a file read at once for one client, at most; less when the worker is crowded.
pub(crate) const FILE_PIECE_BYTES: usize = 64 * 1024;
/// Longest path of a request for a file, in bytes, before it is decoded: Linux has no longer ones (path_resolution(7)).
pub(crate) const FILE_PATH_BYTES_MAX: usize = 4096;
/// Threads of a worker that wait for the disk; more requests for what is not in memory wait for one of them.
pub(crate) const DISK_THREADS_MAX: usize = 8;
/// Longest wait for a file or a piece of one that the disk has to bring: beyond, the disk is not slow but stuck.
pub(crate) const DISK_TIME_MAX: Duration = Duration::from_secs(30);
/// Fields that the edge itself adds to a head, at most.
pub(crate) const HEADERS_WRITTEN_MAX: usize = 16;
/// Rounds of reading and writing of one connection before the others of its worker have their turn.
pub(crate) const ROUNDS_MAX: u32 = 4;
/// Longest time for a whole request head, so that one byte a second holds nothing for long (haproxy's usual 10 s).
pub(crate) const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest idle time of a client's keep-alive connection: nginx's, and above the 60 s after which load balancers in front
/// close theirs, so that they never send into a connection that we are closing.
pub(crate) const CLIENT_IDLE_MAX: Duration = Duration::from_secs(75);
/// Longest time that a client may leave sent bytes unread while more are pending. Quiet streams have none pending.
pub(crate) const CLIENT_STALL_MAX: Duration = Duration::from_secs(60);
/// Longest time for a TCP connect. Targets are on this box: more than this is a full backlog, not distance.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Tries to hand a request to a target. A second one happens only when nothing of the request was written.
pub(crate) const SEND_TRIES_MAX: u32 = 2;
/// Idle time after which an upstream connection is not used again. Below gunicorn's 2 s keep-alive, the shortest of
/// the usual servers, so that we nearly never write into a connection that the target is closing.
pub(crate) const UPSTREAM_IDLE_MAX: Duration = Duration::from_millis(1500);
/// Idle upstream connections per target and worker. More than that were a burst, and reconnecting is cheap on a box.
pub(crate) const UPSTREAM_IDLE_COUNT_MAX: usize = 256;
/// How often idle upstream connections are looked through.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Requests parked per service; beyond, 503 at once. Each costs a few KiB and two counters.
pub(crate) const PARKED_COUNT_MAX: u64 = 1000;
/// Bytes of parked heads per service; beyond, 503 at once. Bodies are not read while parked.
pub(crate) const PARKED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Time between a polite end and the cut, for a stream that stands in the middle of an event or a frame.
pub(crate) const STREAM_END_GRACE: Duration = Duration::from_secs(1);
/// Shortest and longest `retry:` hint to a client whose event stream is ended: browsers wait 3 s without one.
pub(crate) const RETRY_HINT_MIN_MS: u64 = 500;
pub(crate) const RETRY_HINT_MAX_MS: u64 = 4000;
/// An event stream whose head came this long after the request, with all events at once, was collected first.
pub(crate) const COLLECTED_AFTER: Duration = Duration::from_secs(1);
/// Longest time between the head and the end of a stream that came at once.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(50);
/// Path of a stream kept for `status`, in bytes.
pub(crate) const STREAM_PATH_BYTES_MAX: usize = 128;
/// Bytes read at once from one side of an upgraded connection: WebSocket messages are small, and the two sides take turns.
pub(crate) const TUNNEL_BUFFER_BYTES: usize = 16 * 1024;
/// Sockets waiting in the kernel to be accepted; the kernel caps it at `somaxconn` (4,096 by default).
pub(crate) const LISTEN_BACKLOG: i32 = 4096;
/// One address may hold one in so many of all connections: four of them are needed to take every place.
pub(crate) const SOURCE_SHARE: usize = 4;
/// The least that one address may hold, however few there are in all: an office behind one address.
pub(crate) const SOURCE_CONNECTIONS_MIN: usize = 64;
/// File descriptors kept for listeners, control, logs and namespaces when the rest is shared out to connections.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 128;
/// Silence on a client's connection after which the kernel asks whether it is still there, and time between questions.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Wait after `accept` failed for want of descriptors or memory, so that the loop does not spin.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long answers carry `Connection: close` before idle client connections are closed at shutdown.
pub(crate) const CLOSE_NOTICE: Duration = Duration::from_millis(500);
/// Longest wait for open requests after SIGTERM; a shutdown over the control socket names its own.
pub(crate) const DRAIN_TIME_DEFAULT: Duration = Duration::from_secs(30);
/// Longest control message, in bytes: some 50,000 routes.
pub(crate) const CONTROL_LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest time for one call of the control plane.
pub(crate) const CONTROL_TIME_MAX: Duration = Duration::from_secs(5);
/// Connections made for one order: the first may reach an edge in the moment in which it is replaced.
pub(crate) const CONTROL_TRIES_MAX: u32 = 2;
/// Longest time for one order to an edge that has been replaced, so that the order to its successor still ends within
/// [`CONTROL_TIME_MAX`].
pub(crate) const ELDER_TIME_MAX: Duration = Duration::from_secs(2);
/// Time between looks at edges that are waited for.
pub(crate) const ELDER_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long an edge waits for the process that it has handed its sockets to. Orders wait meanwhile, so it is shorter
/// than [`CONTROL_TIME_MAX`]; a successor needs some ten milliseconds.
pub(crate) const READY_TIME_MAX: Duration = Duration::from_secs(3);
/// How long a successor waits for the edge that it replaces: longer than that one waits, so that it hears the verdict.
pub(crate) const PREDECESSOR_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a successor waits for the kernel to confirm that a predecessor which fell silent is dead.
pub(crate) const DEATH_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a replaced edge leaves idle connections open: longer than [`CLIENT_IDLE_MAX`], so that each goes by itself,
/// with an answer that says so or by the usual limit, and no request meets a closed door.
pub(crate) const ELDER_NOTICE: Duration = CLIENT_IDLE_MAX.saturating_add(Duration::from_secs(5));
/// Longest life of a replaced edge: streams of a working day end by themselves, forgotten ones do not.
pub(crate) const ELDER_LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Control connections at once: the control plane holds one, people debugging a few.
pub(crate) const CONTROL_CONNECTIONS_MAX: usize = 32;
/// Sockets asked of a namespace thread and not yet made. Beyond, the asking request waits (and its connect limit runs).
pub(crate) const NAMESPACE_QUEUE_MAX: usize = 64;
/// Stack of a namespace thread, in bytes: it makes sockets and nothing else.
pub(crate) const NAMESPACE_STACK_BYTES: usize = 128 * 1024;
/// Time that the quoted part of a probed body may take: the status is the answer.
pub(crate) const PROBE_QUOTE_TIME_MAX: Duration = Duration::from_millis(200);
/// Bytes of a probed body that are quoted.
pub(crate) const PROBE_QUOTE_BYTES_MAX: usize = 200;
/// Longest request id taken over from a client, in bytes; longer ones are replaced.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 128;
/// `Retry-After` of a service that is starting, parked too long or parked too often, in seconds.
pub(crate) const RETRY_AFTER_SECONDS: u64 = 2;
