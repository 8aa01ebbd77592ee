/**
 * System calls of arm64 that the gateway may not use, with their numbers (Linux, include/uapi/asm-generic/unistd.h): mounting,
 * namespaces, modules, other kernels, clocks, keys, other processes, io_uring, and what lets a process bring programs into the
 * kernel. systemd's unit has the same by `SystemCallFilter` (firmware-image/postern.service).
 */
export const deniedCalls: Readonly<Record<string, number>> = {
  ...{ lookup_dcookie: 18, mknodat: 33, umount2: 39, mount: 40, pivot_root: 41, nfsservctl: 42, chroot: 51 },
  ...{ vhangup: 58, quotactl: 60, acct: 89, personality: 92, unshare: 97, kexec_load: 104, init_module: 105 },
  ...{ delete_module: 106, clock_settime: 112, syslog: 116, ptrace: 117, reboot: 142, sethostname: 161 },
  ...{ setdomainname: 162, settimeofday: 170, adjtimex: 171, add_key: 217, request_key: 218, keyctl: 219 },
  ...{ swapon: 224, swapoff: 225, mbind: 235, migrate_pages: 238, move_pages: 239, perf_event_open: 241 },
  ...{ fanotify_init: 262, fanotify_mark: 263, name_to_handle_at: 264, open_by_handle_at: 265 },
  ...{ clock_adjtime: 266, setns: 268, process_vm_readv: 270, process_vm_writev: 271, kcmp: 272 },
  ...{ finit_module: 273, bpf: 280, userfaultfd: 282, kexec_file_load: 294, io_uring_setup: 425 },
  ...{ io_uring_enter: 426, io_uring_register: 427, open_tree: 428, move_mount: 429, fsopen: 430 },
  ...{ fsconfig: 431, fsmount: 432, fspick: 433, pidfd_getfd: 438, process_madvise: 440, mount_setattr: 442 },
  ...{ quotactl_fd: 443, memfd_secret: 447, set_mempolicy_home_node: 450 },
};
/** Calls whose first argument decides, and those that do not exist for the gateway. */
const calls = { ioctl: 29, socket: 198, clone: 220, clone3: 435 } as const;
/** The newest call of the kernel that this list was made for. Later ones do not exist for the gateway, as in an older kernel. */
const newestCall = 450;
/** AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK, which lists the network interfaces. */
const families = [1, 2, 10, 16] as const;
/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. */
const newNamespaces = 0x7e02_0000;
/** TIOCSTI, which types on a terminal. */
const typing = 0x5412;
const error = { EPERM: 1, ENOSYS: 38, EAFNOSUPPORT: 97 } as const;
/** AUDIT_ARCH_AARCH64. */
const arm64 = 0xc000_00b7;

/** Classic BPF [Linux, include/uapi/linux/bpf_common.h], as seccomp takes it. */
const code = { load: 0x20, and: 0x54, ifEqual: 0x15, ifGreater: 0x25, return: 0x06 } as const;
/** Offsets in `struct seccomp_data`. */
const at = { number: 0, architecture: 4, firstArgument: 16, secondArgument: 24 } as const;
const result = { allow: 0x7fff_0000, fail: (number: number) => 0x0005_0000 | number } as const;

export interface Instruction {
  readonly code: number;
  /** Instructions that are left out when a comparison holds, and when not. */
  readonly ifTrue: number;
  readonly ifFalse: number;
  readonly operand: number;
}

/** The filter of the gateway's system calls. A call that is not allowed fails; the process goes on. */
export function callFilter(): Instruction[] {
  const line = (name: keyof typeof code, operand: number, ifTrue = 0, ifFalse = 0): Instruction => ({
    code: code[name],
    ifTrue,
    ifFalse,
    operand,
  });
  /** `then` for a call with this number. It ends with a return. */
  const inCall = (number: number, then: readonly Instruction[]) => [
    line('ifEqual', number, 0, then.length),
    ...then,
  ];
  const fail = (number: number) => line('return', result.fail(number));
  const allow = line('return', result.allow);
  return [
    // Calls of 32-bit programs have other numbers.
    line('load', at.architecture),
    line('ifEqual', arm64, 1, 0),
    fail(error.ENOSYS),
    line('load', at.number),
    line('ifGreater', newestCall, 0, 1),
    fail(error.ENOSYS),
    ...Object.values(deniedCalls).flatMap((number) => inCall(number, [fail(error.EPERM)])),
    ...inCall(calls.clone3, [fail(error.ENOSYS)]),
    ...inCall(calls.clone, [
      line('load', at.firstArgument),
      line('and', newNamespaces),
      line('ifEqual', 0, 1, 0),
      fail(error.EPERM),
      allow,
    ]),
    ...inCall(calls.ioctl, [
      line('load', at.secondArgument),
      line('ifEqual', typing, 0, 1),
      fail(error.EPERM),
      allow,
    ]),
    ...inCall(calls.socket, [
      line('load', at.firstArgument),
      ...families.flatMap((family) => [line('ifEqual', family, 0, 1), allow]),
      fail(error.EAFNOSUPPORT),
    ]),
    allow,
  ];
}

/** Where the launcher lies in memory, and the sizes of its heads in the file. */
const base = 0x40_0000;
const heads = 64 + 56;

/**
 * The launcher as a program for arm64 (ELF): it sets no-new-privs and the filter, and becomes the program that its arguments name.
 * It ends with 125 when the kernel does not take the filter, and with 126 when there is no such program. Debian's bookworm has no
 * program that only does this, and a compiler for arm64 is not needed for twenty instructions.
 */
export function confiningLauncher(filter: readonly Instruction[] = callFilter()): Buffer {
  const set = (register: number, value: number) => 0xd280_0000 + value * 32 + register;
  const setHigh = (register: number, value: number) => 0xf2a0_0000 + value * 32 + register;
  const call = 0xd400_0001;
  const count = 26;
  const program = base + heads + 4 * count;
  const instructions = [
    ...[set(8, 167), set(0, 38), set(1, 1), set(2, 0), set(3, 0), set(4, 0), call], // prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    ...[set(0, 22), set(1, 2), set(2, program & 0xffff), setHigh(2, program >>> 16), call], // prctl(PR_SET_SECCOMP, 2, program)
    0xb500_0140, // cbnz x0, +10: the filter was not taken
    0x9100_43e1, // add x1, sp, #16: the arguments behind the first one
    0xf940_0020, // ldr x0, [x1]
    0xf940_03e2, // ldr x2, [sp]: how many there are
    0x9100_43e3, // add x3, sp, #16
    0x8b02_0c62, // add x2, x3, x2, lsl #3: the environment
    ...[set(8, 221), call], // execve
    ...[set(0, 126), 0x1400_0002], // b +2
    set(0, 125),
    ...[set(8, 93), call], // exit
    0xd503_201f, // nop
  ];
  if (instructions.length !== count) throw new Error('the launcher has another length than its head says');
  const image = Buffer.alloc(heads + 4 * count + 16 + 8 * filter.length);
  image.write('\x7fELF\x02\x01\x01', 'latin1');
  image.writeUInt16LE(2, 16);
  image.writeUInt16LE(183, 18);
  image.writeUInt32LE(1, 20);
  image.writeBigUInt64LE(BigInt(base + heads), 24);
  image.writeBigUInt64LE(64n, 32);
  for (const [offset, value] of [
    [52, 64],
    [54, 56],
    [56, 1],
  ] as const)
    image.writeUInt16LE(value, offset);
  // One segment, the whole file, to be read and executed.
  image.writeUInt32LE(1, 64);
  image.writeUInt32LE(5, 68);
  for (const [offset, value] of [
    [80, base],
    [88, base],
    [96, image.length],
    [104, image.length],
    [112, 0x1_0000],
  ] as const)
    image.writeBigUInt64LE(BigInt(value), offset);
  for (const [index, word] of instructions.entries()) image.writeUInt32LE(word, heads + 4 * index);
  // struct sock_fprog
  const from = heads + 4 * count;
  image.writeUInt16LE(filter.length, from);
  image.writeBigUInt64LE(BigInt(program + 16), from + 8);
  for (const [index, { code: operation, ifTrue, ifFalse, operand }] of filter.entries()) {
    const place = from + 16 + 8 * index;
    image.writeUInt16LE(operation, place);
    image.writeUInt8(ifTrue, place + 2);
    image.writeUInt8(ifFalse, place + 3);
    image.writeUInt32LE(operand, place + 4);
  }
  return image;
}
