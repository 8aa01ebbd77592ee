import { interior, leaf, type NodeDescription } from '../wire/syncml/ddf.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';

/** What is returned of the devices of a campaign. */
export const ReturnFormat = { Full: 0, Counts: 1, Grouped: 2, Failures: 3 } as const;

/** How a campaign stands. */
export const CampaignState = { Idle: 0, Running: 1, Done: 2, Cancelled: 3 } as const;

/** What the DM server wants of many devices, whatever it is. */
export interface CampaignOrder {
  readonly name: string;
  /** ServerID of the DM server that started it. */
  readonly server: string;
  readonly devices: readonly string[];
  readonly returnFormat: number;
  /** Milliseconds for the whole. */
  readonly deadline: number;
}

const targets = interior(
  serverCreated,
  'Devices that it is for; all that are attached when there is neither list, group nor condition',
  {
    DeviceList: interior(
      serverCreated,
      'Devices by name',
      {
        '*': interior(
          serverCreated,
          'A device',
          { DeviceID: leaf('chr', serverWritten, 'Its DevId') },
          zeroOrMore,
        ),
      },
      zeroOrOne,
    ),
    GroupID: leaf('chr', serverWritten, 'Members of this group of the inventory', zeroOrOne),
    Condition: interior(
      serverCreated,
      'Devices by what the inventory says of them; all conditions must hold',
      {
        '*': interior(
          serverCreated,
          'A condition',
          {
            Path: leaf('chr', serverWritten, 'Leaf of an inventory record, such as Mod'),
            Value: leaf('chr', serverWritten, 'What it must be'),
          },
          zeroOrMore,
        ),
      },
      zeroOrOne,
    ),
  },
  zeroOrOne,
);

/** Nodes of a campaign: `own` is what tells one kind from another. */
export const campaignNodes = (own: Readonly<Record<string, NodeDescription>>) => ({
  Targets: targets,
  ...own,
  ReturnFormat: leaf(
    'int',
    serverWritten,
    '0: all that each device said; 1: how often each outcome; 2: also whose; 3: whose, of failures',
    zeroOrOne,
  ),
  Deadline: leaf('int', serverWritten, 'Seconds for the whole; 3600', zeroOrOne),
  Start: leaf('null', ['Exec', 'Get'], 'Begins; the outcome comes by alert'),
  Stop: leaf('null', ['Exec', 'Get'], 'Devices that were not reached yet are left alone'),
  State: leaf('int', ['Get'], '0: idle, 1: running, 2: done, 3: cancelled'),
  Progress: interior(['Get'], 'How far it is', {
    Total: leaf('int', ['Get'], 'Devices'),
    Done: leaf('int', ['Get'], 'Devices that did all of it'),
    Failed: leaf('int', ['Get'], 'Devices that did not'),
    Pending: leaf('int', ['Get'], 'Devices that are still to come'),
  }),
  Results: leaf('xml', ['Get'], 'What it came to so far'),
  Detail: interior(['Get'], 'All that each device said', {
    '*': leaf('xml', ['Get'], 'A device, by the name of its inventory record', zeroOrMore),
  }),
});

/** Nodes that the gateway answers itself, each campaign having them from its beginning. */
export const liveCampaignNodes = ['Start', 'Stop', 'State', 'Progress', 'Results', 'Detail'] as const;
