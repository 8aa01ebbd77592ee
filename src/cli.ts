import { runCli } from './cli/runner.ts';

await runCli(
  {
    demo: async () => (await import('./cli/demo.ts')).demo,
    gateway: async () => (await import('./cli/gateway.ts')).gateway,
    status: async () => (await import('./cli/status.ts')).status,
    devices: async () => (await import('./cli/devices.ts')).devices,
    ddf: async () => (await import('./cli/ddf.ts')).ddf,
    headend: async () => (await import('./cli/headend.ts')).headend,
    device: async () => (await import('./cli/device.ts')).device,
  },
  process.argv.slice(2),
);
