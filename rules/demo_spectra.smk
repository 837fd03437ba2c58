SEDS_READ = f"{DATA}/demo_{{instrument}}/.seds.json"


rule demo_spectra:
    """Simulated spectra of an instrument: without noise, with noise, their redshifts, and the SEDs that they were made of."""
    message:
        "Simulating spectra of {wildcards.instrument}"
    input:
        seds=lambda wildcards: SEDS,
    output:
        clean=f"{DATA}/demo_{{instrument}}/clean.parquet",
        noisy=f"{DATA}/demo_{{instrument}}/noisy.parquet",
        redshifts=f"{DATA}/demo_{{instrument}}/redshifts.parquet",
        seds=f"{DATA}/demo_{{instrument}}/seds.csv",
    params:
        instrument="{instrument}",
        spectra=settings.demo.spectra,
        seed=settings.seed,
        content=lambda wildcards: content_of(SEDS, Path(SEDS_READ.format(instrument=wildcards.instrument))),
    wildcard_constraints:
        instrument="|".join(INSTRUMENTS),
    log:
        f"{LOGS}/demo_spectra/{{instrument}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/demo_spectra/{{instrument}}.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    script:
        "../workflow_scripts/demo_spectra.py"
