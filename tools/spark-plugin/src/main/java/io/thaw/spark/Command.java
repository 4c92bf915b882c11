// SPDX-License-Identifier: Apache-2.0
package io.thaw.spark;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** The thaw command: Java 8 and 11 have no Unix sockets to speak with the service. */
final class Command {
  private final String program;

  Command(String program) {
    this.program = program;
  }

  /** Run a subcommand. IOException with what it wrote, when it fails. */
  void run(String... words) throws IOException {
    List<String> argv = new ArrayList<>(Arrays.asList(words));
    argv.add(0, program);
    Process process = new ProcessBuilder(argv).redirectErrorStream(true).start();
    process.getOutputStream().close();
    ByteArrayOutputStream said = new ByteArrayOutputStream();
    byte[] block = new byte[4096];
    try (InputStream stream = process.getInputStream()) {
      for (int n = stream.read(block); n >= 0; n = stream.read(block)) {
        said.write(block, 0, n);
      }
      if (process.waitFor() != 0) {
        throw new IOException(new String(said.toByteArray(), StandardCharsets.UTF_8).trim());
      }
    } catch (InterruptedException interrupted) {
      process.destroy();
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", interrupted);
    }
  }
}
