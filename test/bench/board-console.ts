import type { Machine } from '../../firmware-image/qemu/machine.ts';

/** The gateway's process on a board, as the board's own kernel counts it. */
export interface GatewayReading {
  /** User and system, since the process began. */
  readonly cpuSeconds: number;
  /** Resident memory, now and at its highest, in MB (2^20 bytes). */
  readonly megabytes: number;
  readonly peakMegabytes: number;
  /** Memory that the kernel could still give to programs, in MB (2^20 bytes). */
  readonly freeMegabytes: number;
}

/** Clock ticks per second of /proc/PID/stat. */
const ticks = 100;
/** Milliseconds that the shell may take while the gateway is busy. */
const patience = 120_000;
/** Prints one line: user and system ticks; then kB of the peak, of resident memory, and of what is available. */
const question = `g=$(pidof node); echo "gateway: $(cut -d' ' -f14,15 /proc/$g/stat) $(grep -hE '^(VmHWM|VmRSS|MemAvailable)' /proc/$g/status /proc/meminfo | tr -dc '0-9\\n' | tr '\\n' ' ')"`;

/**
 * Reads CPU time and memory of the gateway from the console of a board whose image has a shell there.
 * @throws {Error} when the shell does not answer in time
 */
export async function readGateway(machine: Machine): Promise<GatewayReading> {
  const said = machine.says(/^gateway: (\d+) (\d+) (\d+) (\d+) (\d+)/, patience);
  machine.type(question);
  const [user, system, peak, resident, available] = (await said).slice(1).map(Number);
  return {
    cpuSeconds: (user! + system!) / ticks,
    megabytes: resident! / 1024,
    peakMegabytes: peak! / 1024,
    freeMegabytes: available! / 1024,
  };
}
