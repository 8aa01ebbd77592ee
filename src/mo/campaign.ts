import { interior, leaf, type NodeDescription } from '../wire/syncml/ddf.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';

/**
 * How much the result of a campaign tells of its devices. Full: everything that they answered. Counts: the number of
 * devices of each outcome. Grouped: also their DevIds. Failures: the DevIds of failed devices only.
 */
export const ReturnFormat = { Full: 0, Counts: 1, Grouped: 2, Failures: 3 } as const;

/** States of a campaign. */
export const CampaignState = { Idle: 0, Running: 1, Done: 2, Cancelled: 3 } as const;

/** What the orders of all kinds of campaigns have in common. */
export interface CampaignOrder {
  /** Name of the campaign's node. */
  readonly name: string;
  /** ServerID of the DM server that started it. */
  readonly server: string;
  /** DevIds of the targets. */
  readonly devices: readonly string[];
  /** One of `ReturnFormat`. */
  readonly returnFormat: number;
  /** Milliseconds for the whole campaign. */
  readonly deadline: number;
}

/** Description of the node `Targets`, which `readTargets` reads. */
export const targetNodes = interior(
  serverCreated,
  'Devices that the order is for. Without list, group and condition: all attached devices',
  {
    DeviceList: interior(
      serverCreated,
      'Devices by DevId',
      {
        '*': interior(
          serverCreated,
          'A device',
          { DeviceID: leaf('chr', serverWritten, 'DevId of the device') },
          zeroOrMore,
        ),
      },
      zeroOrOne,
    ),
    GroupID: leaf('chr', serverWritten, 'Group of the inventory, whose members are targets', zeroOrOne),
    Condition: interior(
      serverCreated,
      'Selects devices by their inventory records. All conditions must hold',
      {
        '*': interior(
          serverCreated,
          'A condition',
          {
            Path: leaf('chr', serverWritten, 'Leaf of an inventory record, such as Mod'),
            Value: leaf('chr', serverWritten, 'Value that the leaf must have'),
          },
          zeroOrMore,
        ),
      },
      zeroOrOne,
    ),
  },
  zeroOrOne,
);

/** Descriptions of the nodes of a campaign. `own` are the nodes that only this kind of campaign has. */
export const campaignNodes = (own: Readonly<Record<string, NodeDescription>>) => ({
  Targets: targetNodes,
  ...own,
  ReturnFormat: leaf(
    'int',
    serverWritten,
    '0: everything that each device answered; 1: number of devices for each outcome; 2: also their DevIds; 3: DevIds of failed devices only. Default 3',
    zeroOrOne,
  ),
  Deadline: leaf('int', serverWritten, 'Seconds for the whole campaign. Default 3600', zeroOrOne),
  Start: leaf('null', ['Exec', 'Get'], 'Starts the campaign. An alert reports the result'),
  Stop: leaf('null', ['Exec', 'Get'], 'Stops the campaign. Devices that were not reached yet are skipped'),
  State: leaf('int', ['Get'], '0: idle, 1: running, 2: done, 3: cancelled'),
  Progress: interior(['Get'], 'Progress of the campaign', {
    Total: leaf('int', ['Get'], 'Devices'),
    Done: leaf('int', ['Get'], 'Devices that have succeeded'),
    Failed: leaf('int', ['Get'], 'Devices that have failed'),
    Pending: leaf('int', ['Get'], 'Devices that have not ended'),
  }),
  Results: leaf('xml', ['Get'], 'Result so far'),
  Detail: interior(['Get'], 'Everything that each device answered', {
    '*': leaf('xml', ['Get'], 'A device, by the name of its inventory record', zeroOrMore),
  }),
});

/** Nodes that the gateway answers itself. Every campaign has them as soon as it exists. */
export const liveCampaignNodes = ['Start', 'Stop', 'State', 'Progress', 'Results', 'Detail'] as const;
