import { execFileSync, spawnSync } from 'node:child_process';

/** Sends a UDP datagram from port 0 of 127.0.0.1, which no socket of Node can do. */
const script = `
use Socket;
my ($port, $hex) = @ARGV;
my $payload = pack('H*', $hex);
socket(my $raw, PF_INET, SOCK_RAW, 17) or die "$!";
send($raw, pack('nnnn', 0, $port, 8 + length $payload, 0) . $payload, 0, pack_sockaddr_in(0, inet_aton('127.0.0.1'))) or die "$!";
`;

const isPossible = process.getuid?.() === 0 && spawnSync('perl', ['-MSocket', '-e', '1']).status === 0;

/** Raw sockets, by perl. They need the rights of root. */
export const rawSockets = {
  skip: isPossible ? false : 'raw sockets cannot be opened here: they need root and perl',
  send: (port: number, datagram: readonly number[]): void => {
    execFileSync('perl', ['-e', script, String(port), Buffer.from(datagram).toString('hex')]);
  },
};
