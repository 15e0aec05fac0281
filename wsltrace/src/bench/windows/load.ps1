# The load of `wsltrace bench --from-windows`. It connects to the targets of the plan and changes nothing.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
# Without a console this fails, and does not matter: what is printed is ASCII.
try { [Console]::OutputEncoding = New-Object Text.UTF8Encoding $false } catch { }
$plan = '@PLAN@'
try {
Add-Type -IgnoreWarnings -TypeDefinition @'
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
// The bytes of an answer, one after the other.
class WsltraceReader {
  public NetworkStream stream; public byte[] buffer;
  // Whether any came.
  public bool any;
  int at, used;
  async Task<bool> More() {
    if (at < used) return true;
    at = 0;
    used = await stream.ReadAsync(buffer, 0, buffer.Length);
    any = any || used > 0;
    return used > 0;
  }
  // A line without its end; null where the connection ends before, or the line is too long.
  public async Task<string> Line() {
    var line = new StringBuilder();
    while (line.Length < buffer.Length && await More()) {
      while (at < used) {
        char next = (char)buffer[at++];
        if (next == '\n') return line.ToString().TrimEnd('\r');
        line.Append(next);
      }
    }
    return null;
  }
  // Whether so many bytes came.
  public async Task<bool> Skip(long count) {
    while (count > 0) {
      if (!await More()) return false;
      int step = (int)Math.Min(count, used - at);
      at += step;
      count -= step;
    }
    return true;
  }
  // A body in chunks, with the fields behind it.
  public async Task<bool> SkipChunks() {
    string line;
    while (true) {
      line = await Line();
      long size;
      if (line == null || !long.TryParse(line.Split(';')[0].Trim(), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out size)) return false;
      if (size == 0) break;
      if (size < 0 || !await Skip(size + 2)) return false;
    }
    while ((line = await Line()) != "") if (line == null) return false;
    return true;
  }
}
public class WsltraceLoad {
  IPAddress address; int port, limit; bool http, keep; byte[] request; long start, end;
  long connections, lasted, errors; double rate;
  SortedDictionary<long, long> times = new SortedDictionary<long, long>();
  SortedDictionary<string, long> failed = new SortedDictionary<string, long>();
  public static string Run(string address, int port, string mode, int clients, int milliseconds, int limit) {
    var load = new WsltraceLoad { address = IPAddress.Parse(address), port = port, limit = limit };
    load.http = mode != "connect";
    load.keep = mode == "http_keep_alive";
    string host = address.Contains(":") ? "[" + address + "]" : address;
    load.request = Encoding.ASCII.GetBytes("GET / HTTP/1.1\r\nHost: " + host + ":" + port + "\r\nUser-Agent: wsltrace\r\nAccept: */*\r\n"
      + (load.keep ? "" : "Connection: close\r\n") + "\r\n");
    load.start = Stopwatch.GetTimestamp();
    load.end = load.start + milliseconds * Stopwatch.Frequency / 1000;
    var all = new Task[clients];
    for (int i = 0; i < clients; i++) all[i] = Task.Run(() => load.Client());
    Task.WaitAll(all);
    load.lasted = Nanoseconds(load.start, Stopwatch.GetTimestamp());
    return load.Told();
  }
  // QueryPerformanceCounter, where Windows has it; both ends of a time are of this clock.
  static long Nanoseconds(long from, long to) { return (long)((to - from) * (1e9 / Stopwatch.Frequency)); }
  async Task Client() {
    TcpClient client = null;
    var buffer = new byte[16384];
    long now = Stopwatch.GetTimestamp(), until = now, answered = 0;
    while (now < end) {
      long began = now;
      string failure = null;
      bool again = false;
      try {
        if (client == null) {
          client = new TcpClient(address.AddressFamily);
          client.NoDelay = true;
          // Closed by a reset: the port is free again at once, and no side is closed before the other. So not by TcpClient.Close, which
          // says the end to the other side first.
          client.LingerState = new LingerOption(true, 0);
          if (!await InTime(client.ConnectAsync(address, port))) failure = "timed_out";
          else Interlocked.Increment(ref connections);
          if (keep) began = Stopwatch.GetTimestamp();
        }
        if (failure == null && http) {
          var exchange = Exchange(client.GetStream(), buffer);
          if (!await InTime(exchange)) failure = "timed_out";
          else if (exchange.Result == "again") again = true;
          else if (exchange.Result != "done") failure = exchange.Result;
        }
      } catch (Exception error) { failure = Kind(error); }
      // Nothing was waited for.
      if (failure == "unreachable" || failure == "no_port" || failure == "other") await Task.Delay(1);
      now = Stopwatch.GetTimestamp();
      lock (times) {
        if (failure != null) Count(failed, failure); else Count(times, Rounded(Nanoseconds(began, now)));
      }
      if (failure == null) answered++;
      until = failure == null ? now : Math.Min(now, end);
      if (failure != null || !again || !keep) { if (client != null) client.Client.Close(); client = null; }
    }
    if (client != null) client.Client.Close();
    // A client that waits long for its last answer lengthens nobody else's time.
    lock (times) rate += answered * 1e9 / Nanoseconds(start, Math.Max(until, end));
  }
  async Task<bool> InTime(Task work) {
    using (var cancel = new CancellationTokenSource()) {
      var first = await Task.WhenAny(work, Task.Delay(limit, cancel.Token));
      cancel.Cancel();
      if (first != work) { work.ContinueWith(t => t.Exception, TaskContinuationOptions.OnlyOnFaulted); return false; }
      await work;
      return true;
    }
  }
  // What came of a request, read as HTTP/1.1 says and as the load on Linux reads it.
  async Task<string> Exchange(NetworkStream stream, byte[] buffer) {
    await stream.WriteAsync(request, 0, request.Length);
    var from = new WsltraceReader { stream = stream, buffer = buffer };
    while (true) {
      string line = await from.Line();
      if (line == null) return from.any ? "short" : "closed";
      int status;
      if (!line.StartsWith("HTTP/1.", StringComparison.Ordinal) || line.Length < 12) return "short";
      if (!int.TryParse(line.Substring(9, 3), NumberStyles.None, CultureInfo.InvariantCulture, out status)) return "short";
      bool keeps = line[7] == '1', chunks = false;
      long length = -1;
      while ((line = await from.Line()) != "") {
        int colon = line == null ? -1 : line.IndexOf(':');
        if (colon < 0) return "short";
        string name = line.Substring(0, colon).ToLowerInvariant(), value = line.Substring(colon + 1).Trim().ToLowerInvariant();
        if (name == "content-length" && !long.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out length)) return "short";
        if (name == "transfer-encoding") chunks = value.EndsWith("chunked", StringComparison.Ordinal);
        if (name == "connection") keeps = value != "close";
      }
      // Behind it comes the answer itself.
      if (status < 200 && status != 101) continue;
      // Another protocol begins behind it.
      if (status == 101) { length = 0; chunks = false; keeps = false; }
      if (status == 204 || status == 304) { length = 0; chunks = false; }
      if (chunks) {
        if (!await from.SkipChunks()) return "short";
      } else if (length >= 0) {
        if (!await from.Skip(length)) return "short";
      } else {
        while (await from.Skip(1)) { }
        keeps = false;
      }
      if (status >= 400) Interlocked.Increment(ref errors);
      return keeps ? "again" : "done";
    }
  }
  static string Kind(Exception error) {
    while (error.InnerException != null) error = error.InnerException;
    var socket = error as SocketException;
    if (socket == null) return "other";
    switch (socket.SocketErrorCode) {
      case SocketError.ConnectionRefused: return "refused";
      case SocketError.TimedOut: return "timed_out";
      case SocketError.ConnectionReset: case SocketError.ConnectionAborted: return "reset";
      case SocketError.HostUnreachable: case SocketError.NetworkUnreachable: return "unreachable";
      case SocketError.AddressAlreadyInUse: case SocketError.AddressNotAvailable: case SocketError.NoBufferSpaceAvailable: return "no_port";
      default: return "other";
    }
  }
  // Three significant digits are enough, and keep the answer short.
  static long Rounded(long value) {
    int shift = 0;
    while ((value >> shift) >= 2048) shift++;
    return Math.Max(1, value >> shift << shift);
  }
  static void Count<T>(IDictionary<T, long> counts, T key) { long old; counts.TryGetValue(key, out old); counts[key] = old + 1; }
  string Told() {
    var text = new StringBuilder();
    text.Append("{\"lasted_ns\":" + lasted + ",\"connections\":" + connections + ",\"errors\":" + errors
      + ",\"rate\":" + rate.ToString("F3", CultureInfo.InvariantCulture) + ",\"failed\":{");
    string between = "";
    foreach (var one in failed) { text.Append(between + "\"" + one.Key + "\":" + one.Value); between = ","; }
    text.Append("},\"times\":[");
    between = "";
    foreach (var one in times) { text.Append(between + "[" + one.Key + "," + one.Value + "]"); between = ","; }
    return text.Append("]}").ToString();
  }
}
'@
  $read = ConvertFrom-Json $plan
  $steps = foreach ($step in $read.steps) {
    $path = $read.paths[$step.path]
    [WsltraceLoad]::Run($path.address, $path.port, $path.mode, $read.clients, $step.milliseconds, $read.limit_ms)
  }
  '{"plan":' + $plan + ',"frequency":' + [Diagnostics.Stopwatch]::Frequency + ',"steps":[' + (@($steps) -join ',') + ']}'
} catch {
  $why = ConvertTo-Json -Compress ([string]$_.Exception.Message)
  '{"error":' + [regex]::Replace($why, '[^\x20-\x7e]', { '\u{0:x4}' -f [int][char]$args[0].Value }) + '}'
}
