// `npm run bench:gateway`: an attach storm, and a fan-out against single transparent sessions. The gateway (the bundle), the
// broker (mosquitto) and the devices are processes of their own; the head-end runs in this process. CPU per operation is the
// first figure: it does not depend on how busy the devices keep the machine. `--quick` measures briefly; `--write` records the
// figures; `--against REF` measures the gateway of another revision and the present one in turn.
import { publish } from '../../build/figure-pages.ts';
import { measured, single, today } from '../../build/figures.ts';
import { measuring, optionsOf } from '../options.ts';
import { against } from './gateway-against.ts';
import { fanOuts, sizesOf, storm } from './gateway-work.ts';
import { machine, ratios } from './measure.ts';

/** The gateway of this tree by itself. */
async function alone(isQuick: boolean, write: boolean): Promise<void> {
  const { storm: stormSize, fleet: fleetSize, rounds } = sizesOf(isQuick);
  const attach = await storm(stormSize);
  console.error('the storm is over');
  const { fanned, loop, before, peak } = await fanOuts(fleetSize, rounds);
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
    write,
  );
}

const flags = optionsOf(
  'bench:gateway',
  'An attach storm, and a fan-out against single transparent sessions.',
  {
    ...measuring,
    against: {
      value: 'REF',
      what: 'compares with the gateway of a revision, such as a commit or tag: CPU before and now, in turn',
    },
  },
);
if (flags.against === undefined) await alone(flags.quick, flags.write);
else await against(flags.against, flags.quick, flags.write);
