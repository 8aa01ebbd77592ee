import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { targetNodes } from './campaign.ts';
import { MoId } from './identifiers.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';

/** Nodes that the gateway answers itself. Every observation has them as soon as it exists. */
export const liveObservationNodes = ['Start', 'Stop', 'State', 'Devices', 'Refusals'] as const;

/** GwTelemetry: values of devices that a DM server wants to be told. Postern's own (docs/gwmo.md). */
export const gwTelemetry: ManagementObject = {
  id: MoId.GwTelemetry,
  root: interior(['Get'], 'Values of devices that DM servers are told', {
    Observation: interior(['Get'], 'Observations that DM servers created', {
      '*': interior(
        serverCreated,
        'An observation',
        {
          Targets: targetNodes,
          Paths: interior(serverCreated, 'What is observed of each device', {
            '*': interior(
              serverCreated,
              'A path',
              {
                Path: leaf(
                  'chr',
                  serverWritten,
                  'Path on the device: 3303/0/5700 of an LwM2M client, ./Sensor/Temp of an OMA DM device',
                ),
              },
              zeroOrMore,
            ),
          }),
          Pmin: leaf('int', serverWritten, 'Seconds between two notifications at least', zeroOrOne),
          Pmax: leaf(
            'int',
            serverWritten,
            'Seconds between two notifications at most. An OMA DM device is asked so often; 300 if absent',
            zeroOrOne,
          ),
          Gt: leaf('float', serverWritten, 'A value that crosses this number is notified', zeroOrOne),
          Lt: leaf('float', serverWritten, 'A value that crosses this number is notified', zeroOrOne),
          St: leaf('float', serverWritten, 'A value that has changed by so much is notified', zeroOrOne),
          ReportPeriod: leaf(
            'int',
            serverWritten,
            'Seconds that a value waits for others at most, 1 to 86400. Default 60',
            zeroOrOne,
          ),
          ReportCount: leaf(
            'int',
            serverWritten,
            'Values after which they are reported before that; 0: no number. Default 0',
            zeroOrOne,
          ),
          Lifetime: leaf('int', serverWritten, 'Seconds until it ends; 0: it does not. Default 0', zeroOrOne),
          Start: leaf('null', ['Exec', 'Get'], 'Starts the observation'),
          Stop: leaf('null', ['Exec', 'Get'], 'Ends the observation'),
          State: leaf('int', ['Get'], '0: idle, 1: running, 2: its lifetime is over, 3: stopped'),
          Devices: interior(['Get'], 'Numbers of devices', {
            Observed: leaf('int', ['Get'], 'Devices that are observed'),
            Waiting: leaf('int', ['Get'], 'Devices that are not attached, asleep, silent or not asked yet'),
            Refused: leaf('int', ['Get'], 'Devices that cannot be observed'),
          }),
          Refusals: leaf('chr', ['Get'], 'Why devices cannot be observed; JSON'),
        },
        zeroOrMore,
      ),
    }),
    Buffered: leaf('int', ['Get'], 'Values that no DM server has confirmed'),
    Dropped: leaf('int', ['Get'], 'Values that were dropped since the start, because the buffer was full'),
  }),
};
