/**
 * The system calls that Node does not offer and that the data plane gains by: sendfile(2), send(2), TCP_NOTSENT_LOWAT, SO_RCVLOWAT,
 * SIOCOUTQ, TCP_INFO.
 */
import { loadLibc } from "../libc.ts";

/** Linux: include/uapi/asm-generic/errno-base.h, include/uapi/linux/tcp.h. */
const EAGAIN = 11;
const IPPROTO_TCP = 6;
const TCP_INFO = 11;
const TCP_NOTSENT_LOWAT = 25;
/** Of struct tcp_info, in 32-bit words: tcpi_rtt and tcpi_min_rtt, in µs. */
const TCP_INFO_WORDS = 64;
const RTT_WORD = 17;
const MIN_RTT_WORD = 37;
/** include/uapi/asm-generic/socket.h */
const SOL_SOCKET = 1;
const SO_RCVLOWAT = 18;
/** include/linux/socket.h */
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_MORE = 0x8000;
/** include/uapi/linux/sockios.h */
const SIOCOUTQ = 0x5411;

export interface NativeSocket {
  /**
   * Sends up to `length` bytes of `fileFd` from `offset` on the non-blocking socket `socketFd`.
   * @returns bytes taken by the kernel; 0 when the socket is full; −1 on any other failure
   */
  sendfile(socketFd: number, fileFd: number, offset: number, length: number): number;
  /**
   * Sends bytes without waiting. With `isMoreToCome` the kernel keeps them for what is sent next, which leaves in one packet
   * with them. @returns bytes taken by the kernel, which keeps no reference to `bytes`; 0 when the socket is full, or fails
   */
  send(socketFd: number, bytes: Uint8Array, isMoreToCome: boolean): number;
  /**
   * Asks to be woken only when `bytes` can be read at once (1: as usual). Used while payload of known length is under
   * way: on a slow link that is one wake-up per block instead of one per packet.
   */
  wakeAt(socketFd: number, bytes: number): void;
  /** Bounds what the kernel holds unsent, so that control frames do not wait behind a deep buffer. */
  limitUnsent(socketFd: number, bytes: number): void;
  /** What the kernel holds of what was written: not sent yet, on its way, or not acknowledged. 0 where it does not say. */
  heldBytes(socketFd: number): number;
  /** Of late, and at least within minutes; what lies between is queues. Undefined where the kernel does not say. */
  roundTrip(socketFd: number): RoundTrip | undefined;
}

export interface RoundTrip {
  readonly roundTripMs: number;
  readonly leastRoundTripMs: number;
}

let loaded: NativeSocket | undefined | null;

/** The system calls, or undefined where they cannot be had (other platform, koffi missing, DRAGONFLY_PORTABLE set). */
export function nativeSocket(): NativeSocket | undefined {
  loaded ??= load() ?? null;
  return loaded ?? undefined;
}

function load(): NativeSocket | undefined {
  const libc = loadLibc();
  if (libc === undefined) return undefined;
  try {
    const sendfile = libc.func("int64_t sendfile(int out, int in, int64_t *offset, size_t count)");
    const send = libc.func("int64_t send(int fd, const uint8_t *bytes, size_t length, int flags)");
    const setsockopt = libc.func("int setsockopt(int fd, int level, int name, int *value, uint32_t length)");
    const ioctl = libc.func("int ioctl(int fd, unsigned long request, int *value)");
    const getsockopt = libc.func("int getsockopt(int fd, int level, int name, uint32_t *value, uint32_t *length)");
    const info = new Uint32Array(TCP_INFO_WORDS);
    const infoLength = new Uint32Array(1);
    const position = new BigInt64Array(1);
    const value = new Int32Array(1);
    return {
      sendfile(socketFd, fileFd, offset, length) {
        position[0] = BigInt(offset);
        const sent = Number(sendfile(socketFd, fileFd, position, length));
        if (sent >= 0) return sent;
        return libc.errno() === EAGAIN ? 0 : -1;
      },
      send(socketFd, bytes, isMoreToCome) {
        return Math.max(0, Number(send(socketFd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL | (isMoreToCome ? MSG_MORE : 0))));
      },
      wakeAt(socketFd, bytes) {
        value[0] = bytes;
        setsockopt(socketFd, SOL_SOCKET, SO_RCVLOWAT, value, 4);
      },
      limitUnsent(socketFd, bytes) {
        value[0] = bytes;
        setsockopt(socketFd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value, 4);
      },
      heldBytes(socketFd) {
        value[0] = 0;
        return ioctl(socketFd, SIOCOUTQ, value) === 0 ? value[0] : 0;
      },
      roundTrip(socketFd) {
        infoLength[0] = info.byteLength;
        const isTold = getsockopt(socketFd, IPPROTO_TCP, TCP_INFO, info, infoLength) === 0 && infoLength[0] >= (MIN_RTT_WORD + 1) * 4;
        return isTold ? { roundTripMs: (info[RTT_WORD] as number) / 1_000, leastRoundTripMs: (info[MIN_RTT_WORD] as number) / 1_000 } : undefined;
      },
    };
  } catch {
    return undefined;
  }
}
