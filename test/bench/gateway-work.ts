import { deviceId } from './crowd.ts';
import { fleet } from './fleet.ts';
import { cpuSeconds, residentMegabytes } from './measure.ts';

/** Sizes of a run: devices of the storm, devices of the fleet, and rounds. */
export const sizesOf = (isQuick: boolean) =>
  isQuick ? { storm: 500, fleet: 200, rounds: 2 } : { storm: 5000, fleet: 1000, rounds: 3 };

/**
 * An attach storm: blank devices start at once, as after a power cut. CPU is that of the gateway in µs per device, times are in
 * seconds and memory is in MB.
 * @param bundle path of the gateway's bundle: that of this tree if absent
 */
export async function storm(size: number, bundle?: string) {
  await using crowd = await fleet(size, false, { bundle });
  const idle = residentMegabytes(crowd.gateway);
  const cpu = cpuSeconds(crowd.gateway);
  const began = performance.now();
  await crowd.attach();
  const attached = (performance.now() - began) / 1000;
  await crowd.heard.until('alert.device-attach', size);
  const alerted = (performance.now() - began) / 1000;
  return {
    attached,
    alerted,
    cpu: ((cpuSeconds(crowd.gateway) - cpu) * 1e6) / size,
    sessions: crowd.heard.count('session.started'),
    idle,
    peak: residentMegabytes(crowd.gateway, 'VmHWM'),
  };
}

/** Of each round: devices per second, and CPU of the gateway in µs per device. */
export interface Rounds {
  readonly rate: number[];
  readonly cpu: number[];
}

/**
 * A fleet with accounts at the DM server. It attaches, and in each round one Replace goes to all its devices by a fan-out, and
 * another one in single transparent sessions, one after the other. `attach` is the CPU of the gateway in µs per device until the
 * DM server has all alerts; memory is in MB.
 * @param bundle path of the gateway's bundle: that of this tree if absent
 * @throws {Error} when a device does not answer 200
 */
export async function fanOuts(size: number, rounds: number, bundle?: string) {
  await using crowd = await fleet(size, true, { bundle });
  const { gateway, headend, heard } = crowd;
  const start = cpuSeconds(gateway);
  await crowd.attach();
  await heard.until('alert.device-attach', size);
  const attach = ((cpuSeconds(gateway) - start) * 1e6) / size;
  const fanned: Rounds = { rate: [], cpu: [] };
  const loop: Rounds = { rate: [], cpu: [] };
  const before = residentMegabytes(gateway);
  const measure = async (into: Rounds, work: () => Promise<void>) => {
    const cpu = cpuSeconds(gateway);
    const began = performance.now();
    await work();
    into.rate.push((size * 1000) / (performance.now() - began));
    into.cpu.push(((cpuSeconds(gateway) - cpu) * 1e6) / size);
  };
  for (let round = 1; round <= rounds; round++) {
    const label = `round ${round}`;
    await measure(fanned, async () => {
      const ended = heard.until('alert.command-fanout', heard.count('alert.command-fanout') + 1);
      await headend.fanOut('gw-1', {
        name: `label-${round}`,
        targets: {},
        returnFormat: 3,
        command: `<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Settings/Label</LocURI></Target><Data>${label}</Data></Item></Replace>`,
      });
      await ended;
      const result = headend.fanouts().at(-1)?.result ?? '';
      if (!result.includes(`Done="${size}"`)) throw new Error(`the fan-out failed: ${result.slice(0, 500)}`);
    });
    await measure(loop, async () => {
      for (let at = 0; at < size; at++) {
        const [done] = await headend.manage(deviceId(at), [
          { name: 'Replace', uri: './Settings/Label', data: label },
        ]);
        if (done?.status !== 200) throw new Error(`${deviceId(at)} answered ${done?.status}`);
      }
    });
  }
  return { attach, fanned, loop, before, peak: residentMegabytes(gateway, 'VmHWM') };
}
