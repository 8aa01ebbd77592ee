// `npm run bench:gateway`: an attach storm, and a fan-out against single transparent sessions. The gateway (the bundle), the
// broker (mosquitto) and the devices are processes of their own; the head-end runs in this process. CPU per operation is the
// first figure: it does not depend on how busy the devices keep the machine. `--quick` measures briefly; `--write` records the
// figures.

import { publish } from '../../build/figure-pages.ts';
import { measured, single, today } from '../../build/figures.ts';
import { measuring, optionsOf } from '../options.ts';
import { deviceId } from './crowd.ts';
import { fleet } from './fleet.ts';
import { cpuSeconds, machine, ratios, residentMegabytes } from './measure.ts';

const flags = optionsOf(
  'bench:gateway',
  'An attach storm, and a fan-out against single transparent sessions.',
  measuring,
);
const stormSize = flags.quick ? 500 : 5000;
const fleetSize = flags.quick ? 200 : 1000;
const rounds = flags.quick ? 2 : 3;

async function storm() {
  await using crowd = await fleet(stormSize, false);
  const idle = residentMegabytes(crowd.gateway);
  const cpu = cpuSeconds(crowd.gateway);
  const began = performance.now();
  await crowd.attach();
  const attached = (performance.now() - began) / 1000;
  await crowd.heard.until('alert.device-attach', stormSize);
  const alerted = (performance.now() - began) / 1000;
  return {
    attached,
    alerted,
    cpu: ((cpuSeconds(crowd.gateway) - cpu) * 1e6) / stormSize,
    sessions: crowd.heard.count('session.started'),
    idle,
    peak: residentMegabytes(crowd.gateway, 'VmHWM'),
  };
}

async function fanOut() {
  await using crowd = await fleet(fleetSize, true);
  const { gateway, headend, heard } = crowd;
  await crowd.attach();
  await heard.until('alert.device-attach', fleetSize);
  /** Of each round: devices per second, and CPU of the gateway in µs per device. */
  const fanned = { rate: [] as number[], cpu: [] as number[] };
  const loop = { rate: [] as number[], cpu: [] as number[] };
  const before = residentMegabytes(gateway);
  const measure = async (into: typeof fanned, work: () => Promise<void>) => {
    const cpu = cpuSeconds(gateway);
    const began = performance.now();
    await work();
    into.rate.push((fleetSize * 1000) / (performance.now() - began));
    into.cpu.push(((cpuSeconds(gateway) - cpu) * 1e6) / fleetSize);
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
      if (!result.includes(`Done="${fleetSize}"`))
        throw new Error(`the fan-out failed: ${result.slice(0, 500)}`);
    });
    await measure(loop, async () => {
      for (let at = 0; at < fleetSize; at++) {
        const [done] = await headend.manage(deviceId(at), [
          { name: 'Replace', uri: './Settings/Label', data: label },
        ]);
        if (done?.status !== 200) throw new Error(`${deviceId(at)} answered ${done?.status}`);
      }
    });
    console.error(`round ${round} of ${rounds}`);
  }
  return { fanned, loop, before, peak: residentMegabytes(gateway, 'VmHWM') };
}

const attach = await storm();
console.error('the storm is over');
const { fanned, loop, before, peak } = await fanOut();
const [crowdOf, fleetOf] = [stormSize.toLocaleString('en'), fleetSize.toLocaleString('en')];
publish(
  'gateway',
  {
    title: 'Gateway',
    date: today(),
    machine: machine(),
    how: [
      '`npm run bench:gateway`: the gateway (the bundle, state on disk), mosquitto and reference devices are processes of one machine, so times depend on what the devices and the head-end take of it.',
      `Storm: ${crowdOf} blank devices start at once, as after a power cut.`,
      `Fan-out: one Replace for ${fleetOf} devices by proxy mode. Loop: the same Replace in single sessions with the DM server, one after the other, by transparent mode. Both take turns in ${rounds} rounds, without a network's delay.`,
    ].join(' '),
    figures: {
      'storm-cpu': single(`Gateway CPU per device, storm of ${crowdOf} blank devices`, 'µs', attach.cpu),
      'fan-out-cpu': measured(`Gateway CPU per device, fan-out to ${fleetOf} devices`, 'µs', fanned.cpu),
      'loop-cpu': measured('Gateway CPU per device, loop of single sessions', 'µs', loop.cpu),
      'fan-out-vs-loop-cpu': measured(
        'Gateway CPU per device, fan-out / loop of single sessions',
        'times',
        ratios(fanned.cpu, loop.cpu),
      ),
      'fan-out-vs-loop-rate': measured(
        'Throughput, fan-out / loop of single sessions',
        'times',
        ratios(fanned.rate, loop.rate),
      ),
      'storm-peak': single(`Peak memory (RSS), storm of ${crowdOf} blank devices`, 'MB', attach.peak, {
        atMost: 160,
      }),
      'storm-idle': single('Memory (RSS) before the storm', 'MB', attach.idle),
      'attached-memory': single(`Memory (RSS) with ${fleetOf} devices attached`, 'MB', before),
      'fan-out-peak': single(`Peak memory (RSS) of ${rounds} fan-outs and loops`, 'MB', peak),
      'storm-sessions': single('Sessions for all attach alerts of the storm', '', attach.sessions),
      'storm-attached': single('Storm: until all devices are attached', 's', attach.attached),
      'storm-alerted': single('Storm: until the DM server has all alerts', 's', attach.alerted),
      'fan-out-rate': measured('Throughput, fan-out', 'devices/s', fanned.rate),
      'loop-rate': measured('Throughput, loop of single sessions', 'devices/s', loop.rate),
    },
  },
  flags.write,
);
