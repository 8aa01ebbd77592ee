import { interior, leaf, type ManagementObject } from '../syncml/ddf.ts';
import { MoId } from './identifiers.ts';

const many = { occurs: 'ZeroOrMore' } as const;
const maybe = { occurs: 'ZeroOrOne' } as const;
const nodes = ['Add', 'Delete', 'Get'] as const;
const values = ['Add', 'Delete', 'Get', 'Replace'] as const;

/** What is returned of the devices of a fan-out. */
export const ReturnFormat = { Full: 0, Counts: 1, Grouped: 2, Failures: 3 } as const;

/** How a fan-out stands. */
export const FanoutState = { Idle: 0, Running: 1, Done: 2, Cancelled: 3 } as const;

/** GwFanout: one command set for many devices. The name is GwMO's; the nodes are proposed (docs/architecture.md). */
export const gwFanout: ManagementObject = {
  id: MoId.GwFanout,
  root: interior(['Get'], 'Commands for many End Devices at once', {
    Fanout: interior(['Get'], 'Fan-outs that the DM server made', {
      '*': interior(
        nodes,
        'A fan-out',
        {
          Targets: interior(
            nodes,
            'Devices that it is for; all that are attached when there is neither list nor condition',
            {
              DeviceList: interior(
                nodes,
                'Devices by name',
                { '*': interior(nodes, 'A device', { DeviceID: leaf('chr', values, 'Its DevId') }, many) },
                maybe,
              ),
              Condition: interior(
                nodes,
                'Devices by what the inventory says of them; all conditions must hold',
                {
                  '*': interior(
                    nodes,
                    'A condition',
                    {
                      Path: leaf('chr', values, 'Leaf of an inventory record, such as Mod'),
                      Value: leaf('chr', values, 'What it must be'),
                    },
                    many,
                  ),
                },
                maybe,
              ),
            },
            maybe,
          ),
          Command: leaf('xml', values, 'Commands as SyncBody has them, for the tree of each device'),
          ReturnFormat: leaf(
            'int',
            values,
            '0: all that each device said; 1: how often each outcome; 2: also whose; 3: whose, of failures',
            maybe,
          ),
          Timeout: leaf('int', values, 'Seconds that a device may take to open a session; 60', maybe),
          Deadline: leaf('int', values, 'Seconds for the whole; 3600', maybe),
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
        },
        many,
      ),
    }),
  }),
};

/** Leaves that the gateway answers itself, each node of a fan-out having them from its beginning. */
export const liveFanoutNodes = ['Start', 'Stop', 'State', 'Progress', 'Results'] as const;
